use super::*;
use crate::clock::SECOND;

fn bins(values: &[(i64, f64)]) -> BTreeMap<Micros, Bin> {
    let bin = |v: f64| Bin {
        demand_ns: v * 1e9,
        ready_ns: 0.0,
        window_ns: 1e9,
        vcpu_ns: 2e9,
    };
    values.iter().map(|(t, v)| (t * SECOND, bin(*v))).collect()
}

#[test]
fn gaps_are_filled_by_a_line() {
    let (values, end) =
        series::regular(&bins(&[(0, 1.0), (4, 3.0)]), Metric::DemandVcpus, SECOND).unwrap();
    assert_eq!((values, end), (vec![1.0, 1.5, 2.0, 2.5, 3.0], 5 * SECOND));
    let (values, _) =
        series::regular(&bins(&[(0, 1.0), (5, 3.0)]), Metric::DemandVcpus, SECOND).unwrap();
    assert_eq!(values, [3.0]);
}

#[test]
fn unavailable_values_are_missing_and_not_zero() {
    let mut all = bins(&[(0, 1.0), (1, 2.0), (2, 3.0)]);
    all.get_mut(&SECOND).unwrap().demand_ns = f64::NAN;
    let (values, _) = series::regular(&all, Metric::DemandVcpus, SECOND).unwrap();
    assert_eq!(values, [1.0, 2.0, 3.0]);
    all.values_mut().for_each(|b| b.vcpu_ns = 0.0);
    assert_eq!(series::regular(&all, Metric::ReadyRatio, SECOND), None);
}

#[test]
fn a_bin_half_covered_by_windows_does_not_count() {
    let mut all = bins(&[(0, 1.0), (1, 2.0)]);
    all.get_mut(&SECOND).unwrap().window_ns = 0.4e9;
    let (values, end) = series::regular(&all, Metric::DemandVcpus, SECOND).unwrap();
    assert_eq!((values, end), (vec![1.0], SECOND));
}

#[test]
fn step_follows_the_length_of_the_history() {
    assert_eq!(step(10, 300, 0), 10);
    assert_eq!(step(10, 300, 11), 20);
    assert_eq!(step(10, 300, 250), 300);
    assert_eq!(step(10, 300, 100_000), 300);
    assert_eq!(step(10, 10, 100_000), 10);
}

//! How a host's CPUs are shared: work-conserving, the small ones first served.

/// Share that each demand gets of `capacity`, all in CPUs: all of it where
/// there is enough, else what is below a common level (max-min fairness, which
/// is what equal weights come to).
#[must_use]
pub fn shares(demands: &[f64], capacity: f64) -> Vec<f64> {
    let level = level(demands, capacity);
    demands.iter().map(|d| d.min(level)).collect()
}

fn level(demands: &[f64], capacity: f64) -> f64 {
    let mut sorted = demands.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (mut left, mut others) = (capacity, sorted.len());
    for demand in sorted {
        let equal = left / count(others);
        if demand > equal {
            return equal;
        }
        left -= demand;
        others -= 1;
    }
    f64::INFINITY
}

/// Mean wait over mean time on CPU with `threads` CPUs used to the fraction
/// `load`: Sakasegawa's approximation for M/M/c (Annals of the Institute of
/// Statistical Mathematics 29, 1977), `load` capped at 0.97.
#[must_use]
pub fn wait_per_run(load: f64, threads: u32) -> f64 {
    let (load, c) = (load.clamp(0.0, 0.97), f64::from(threads.max(1)));
    load.powf((2.0 * (c + 1.0)).sqrt() - 1.0) / (c * (1.0 - load))
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_used_up_and_small_demands_are_met() {
        let got = shares(&[0.1, 0.9, 0.9], 1.5);
        assert!((got.iter().sum::<f64>() - 1.5).abs() < 1e-9);
        assert!((got[0] - 0.1).abs() < 1e-9 && (got[1] - 0.7).abs() < 1e-9);
        assert_eq!(shares(&[0.2, 0.3], 4.0), [0.2, 0.3]);
    }

    #[test]
    fn one_cpu_waits_as_m_m_1_says() {
        assert!((wait_per_run(0.5, 1) - 1.0).abs() < 1e-9);
        assert!(wait_per_run(0.5, 64) < wait_per_run(0.9, 64));
    }
}

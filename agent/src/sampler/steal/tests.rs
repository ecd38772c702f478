use super::*;

/// Linux 6.18 as a KVM guest.
const STAT: &str = "cpu  961544 14844 321899 1254554 14708 0 3800 1985 22 0
cpu0 467814 6623 147660 657652 4710 0 1224 970 12 0
cpu1 493730 8221 174239 596901 9997 0 2575 1014 10 0
intr 8526478 0 0
ctxt 12
";

fn steal(clock: StealClock) -> Steal {
    Steal {
        hypervisor: Some(Hypervisor {
            name: "kvm".to_owned(),
            steal_clock: clock,
        }),
        base: Reading::default(),
    }
}

#[test]
fn steal_is_the_eighth_figure() {
    assert_eq!(parse(STAT), [(0, 9_700_000_000), (1, 10_140_000_000)]);
}

#[test]
fn rows_are_of_cpus_online_at_both_ends() {
    let frame = Frame { ts: 1, host: "h" };
    let at = |at_ns, cpus: &[(u32, u64)]| Reading {
        at_ns,
        cpus: cpus.to_vec(),
    };
    let rows = cpu_rows(
        &frame,
        &at(5, &[(0, 100), (1, 7)]),
        &at(15, &[(0, 400), (1, 3), (2, 90)]),
    );
    let told: Vec<_> = rows
        .iter()
        .map(|r| (r.cpu, r.steal_ns, r.window_ns))
        .collect();
    assert_eq!(told, [(0, 300, 10), (1, 0, 10)]);
}

#[test]
fn unavailable_is_never_nought() {
    let none = Reading {
        at_ns: 9,
        cpus: vec![(0, 0)],
    };
    let some = Reading {
        at_ns: 9,
        cpus: vec![(0, 1)],
    };
    assert!(steal(StealClock::Yes).unavailable(&none).is_none());
    assert!(steal(StealClock::No).unavailable(&some).is_some());
    assert!(steal(StealClock::Unknown).unavailable(&none).is_some());
    assert!(steal(StealClock::Unknown).unavailable(&some).is_none());
    let bare = Steal {
        hypervisor: None,
        base: Reading::default(),
    };
    let reason = bare.unavailable(&some).unwrap();
    assert!(reason.contains("bare metal"), "{reason}");
}

#[test]
fn a_window_of_this_host() {
    let mut steal = Steal::new();
    let frame = Frame { ts: 1, host: "h" };
    let chunks = steal.window(&frame, &Scene::default());
    assert_eq!(chunks[0].rows(), 1);
    let told = steal.status()[0].source.is_some();
    assert_eq!(
        chunks[1].rows() > 0,
        told,
        "a row for each CPU where steal is told"
    );
}

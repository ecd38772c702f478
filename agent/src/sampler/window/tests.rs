use proptest::prelude::*;

use super::*;

/// A step of a thread's life: how long, and what it did, as shares.
#[derive(Clone, Debug)]
struct Step {
    ns: u64,
    run: u64,
    wake: u64,
    preempt: u64,
    waits: Vec<u64>,
    switches: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let ns = 0u64..20_000_000_000;
    // Up to 1.2 times the step: a source that credits late.
    let parts = (0u64..=120, 0u64..=120, 0u64..=120);
    let waits = prop::collection::vec(1u64..20_000_000_000, 0..5);
    (ns, parts, waits, 0u64..1000).prop_map(|(ns, (run, wake, preempt), waits, switches)| Step {
        ns,
        run: ns / 100 * run,
        wake: ns / 100 * wake,
        preempt: ns / 100 * preempt,
        waits,
        switches,
    })
}

fn apply(reading: &Reading, step: &Step) -> Reading {
    let mut next = reading.clone();
    next.at_ns += step.ns;
    next.run_ns += step.run;
    next.ready_ns += step.wake + step.preempt;
    if let Some(d) = next.detail.as_mut() {
        d.ready_wake_ns += step.wake;
        d.ready_preempt_ns += step.preempt;
        d.switches += step.switches;
        for wait in &step.waits {
            d.hist.record(*wait, 1);
            d.ready_max_ns = d.ready_max_ns.max(*wait);
        }
    }
    next
}

fn start(detail: bool) -> Reading {
    let detail = detail.then(Box::<Detail>::default);
    Reading {
        at_ns: 1_000,
        run_ns: 500,
        clock_skews: Some(0),
        detail,
        ..Reading::default()
    }
}

proptest! {
    #[test]
    fn run_ready_and_wait_fill_the_window(steps in prop::collection::vec(step(), 1..12), detail: bool) {
        let first = start(detail);
        let (mut base, mut now) = (first.clone(), first.clone());
        let (mut run, mut ready, mut waits, mut switches) = (0, 0, 0, 0);
        for s in &steps {
            now = apply(&now, s);
            let d = advance(&mut base, &now);
            prop_assert_eq!(d.window_ns, s.ns);
            prop_assert_eq!(d.run_ns + d.ready_ns + d.wait_ns, d.window_ns);
            run += d.run_ns;
            ready += d.ready_ns;
            if let Some(detail) = d.detail {
                prop_assert_eq!(detail.ready_wake_ns + detail.ready_preempt_ns, d.ready_ns);
                prop_assert_eq!(detail.hist.total(), s.waits.len() as u64);
                let longest = s.waits.iter().max().copied().unwrap_or(0);
                let bound = (longest / 8).max(512);
                prop_assert!(detail.ready_max_ns.abs_diff(longest.min(headroom_abi::hist::MAX_NS)) <= bound
                    || detail.ready_max_ns == longest);
                waits += detail.hist.total();
                switches += detail.switches;
            }
        }
        // Nothing is claimed that did not happen ...
        prop_assert!(run <= now.run_ns - first.run_ns && ready <= now.ready_ns - first.ready_ns);
        // ... and a long quiet window brings whatever was credited late.
        now.at_ns += 10_000_000_000_000;
        let d = advance(&mut base, &now);
        prop_assert_eq!(run + d.run_ns, now.run_ns - first.run_ns);
        prop_assert_eq!(ready + d.ready_ns, now.ready_ns - first.ready_ns);
        if let Some(e) = &now.detail {
            prop_assert_eq!(waits, e.hist.total());
            prop_assert_eq!(switches, e.switches);
        }
    }

    #[test]
    fn cutting_a_window_in_two_changes_nothing(a in step(), b in step()) {
        // Without late credit, so that no excess moves between windows.
        let honest = |s: Step| Step { run: s.ns / 3, wake: s.ns / 4, preempt: s.ns / 5, ..s };
        let (a, b) = (honest(a), honest(b));
        let first = start(true);
        let middle = apply(&first, &a);
        let end = apply(&middle, &b);
        let (mut one, mut two) = (first.clone(), first);
        let whole = advance(&mut one, &end);
        let (x, y) = (advance(&mut two, &middle), advance(&mut two, &end));
        prop_assert_eq!(whole.run_ns, x.run_ns + y.run_ns);
        prop_assert_eq!(whole.ready_ns, x.ready_ns + y.ready_ns);
        prop_assert_eq!(whole.wait_ns, x.wait_ns + y.wait_ns);
        prop_assert_eq!(one, two);
    }
}

#[test]
fn a_reading_that_goes_back_gives_zero() {
    let mut base = Reading {
        at_ns: 100,
        run_ns: 50,
        ready_ns: 20,
        ..Reading::default()
    };
    let d = advance(
        &mut base,
        &Reading {
            at_ns: 90,
            run_ns: 10,
            ready_ns: 5,
            ..Reading::default()
        },
    );
    assert_eq!((d.window_ns, d.run_ns, d.ready_ns, d.wait_ns), (0, 0, 0, 0));
    assert_eq!((base.at_ns, base.run_ns, base.ready_ns), (100, 50, 20));
}

#[test]
fn an_open_wait_is_the_longest() {
    let mut base = start(true);
    let mut end = base.clone();
    end.at_ns += 1_000_000_000;
    let d = end.detail.as_mut().unwrap();
    (d.ready_wake_ns, d.ready_open_ns) = (917_000_000, 917_000_000);
    let delta = advance(&mut base, &end);
    assert_eq!(delta.detail.unwrap().ready_max_ns, 917_000_000);
    assert_eq!(delta.ready_ns, 917_000_000);
}

//! Shares of a CPU: what is counted must add up and agree with the kernel's own
//! sums.

use std::time::Duration;

use headroom_agent::probe::{AttachPolicy, Probes, Reading, Slot};

use crate::load::{Cgroup, Process, wait_for};
use crate::{VCPU, alone, probes, ready};

const WINDOWS: usize = 4;
const WINDOW: Duration = Duration::from_millis(1500);

#[test]
fn two_busy_threads_wait_half_the_time_tp_btf() {
    halves(AttachPolicy::TpBtf);
}

#[test]
fn two_busy_threads_wait_half_the_time_raw_tp() {
    halves(AttachPolicy::RawTp);
}

#[test]
fn a_lone_spinner_runs_all_the_time() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let cgroup = Cgroup::heaviest("lone");
    let process = Process::busy();
    process.pin(1 % std::thread::available_parallelism().unwrap().get());
    join(cgroup.as_ref(), &process);
    let slot = probes.register(process.tid(), VCPU).unwrap();
    let first = probes.read(&slot);
    std::thread::sleep(WINDOW);
    let last = probes.read(&slot);
    // Counted from the registration although it may not be switched once.
    let window = last.at_ns - first.at_ns;
    let counted = last.run_ns + ready(&last);
    assert!(share(counted, window) > 0.995, "{counted} of {window}");
    assert!(share(last.run_ns, window) > 0.9, "{last:?}");
}

/// Two on one CPU: each runs half of the time and waits the other half.
fn halves(policy: AttachPolicy) {
    let _alone = alone();
    let Some(mut probes) = probes(4, policy) else {
        return;
    };
    let cgroup = Cgroup::heaviest(probes.source());
    let pair = [Process::busy(), Process::busy()];
    for process in &pair {
        process.pin(0);
        join(cgroup.as_ref(), process);
    }
    let slots: Vec<_> = pair
        .iter()
        .map(|p| probes.register(p.tid(), VCPU).unwrap())
        .collect();
    assert!(wait_for(|| slots
        .iter()
        .all(|slot| probes.read(slot).switches > 2)));

    let mut before = both(&probes, &slots, &pair);
    for _ in 0..WINDOWS {
        std::thread::sleep(WINDOW);
        let after = both(&probes, &slots, &pair);
        for (before, after) in before.iter().zip(&after) {
            window(before, after);
        }
        before = after;
    }
}

fn join(cgroup: Option<&Cgroup>, process: &Process) {
    if let Some(cgroup) = cgroup {
        cgroup.add(process).unwrap();
    }
}

/// Readings and, at the same moment, the kernel's own sum of waits.
fn both(probes: &Probes, slots: &[Slot], pair: &[Process]) -> Vec<(Reading, u64)> {
    let read = |(slot, process): (&Slot, &Process)| {
        // The kernel adds a wait some µs after the probe saw its end: only a
        // moment without an event in the last ms is the same for both.
        loop {
            let early = probes.read(slot);
            std::thread::sleep(Duration::from_millis(1));
            let delay = process.run_delay();
            let late = probes.read(slot);
            if (early.state, early.switches) == (late.state, late.switches) {
                return (late, delay);
            }
        }
    };
    slots.iter().zip(pair).map(read).collect()
}

fn window((before, delay_before): &(Reading, u64), (after, delay_after): &(Reading, u64)) {
    let window = after.at_ns - before.at_ns;
    let (run, waited) = (after.run_ns - before.run_ns, ready(after) - ready(before));
    println!(
        "run {:.4} ready {:.4}",
        share(run, window),
        share(waited, window)
    );
    assert!(
        (share(waited, window) - 0.5).abs() < 0.02,
        "ready {waited} of {window} ns"
    );
    // It never sleeps: both together are the window, but for what a switch that
    // no program saw leaves open until the next tick.
    assert!(
        share((run + waited).abs_diff(window), window) < 0.005,
        "{run} + {waited} in {window}"
    );
    // The kernel adds a wait up when it ends.
    let ended = (ready(after) - after.ready_open_ns) - (ready(before) - before.ready_open_ns);
    let delay = delay_after - delay_before;
    println!("waits {ended} ns, run_delay {delay} ns");
    assert!(
        share(ended.abs_diff(delay), delay) < 0.02,
        "{ended} counted, {delay} by the kernel"
    );
    assert_eq!(after.clock_skews, before.clock_skews);
}

#[expect(clippy::cast_precision_loss, reason = "ns of a window of seconds")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

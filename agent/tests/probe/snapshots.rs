//! What a timer of the kernel notes of all vCPUs at once.

use std::time::Duration;

use headroom_abi::{snapshot, tag};
use headroom_agent::probe::{Activity, AttachPolicy, CostMeter, Probes, Slot, Snapshot};
use headroom_tests::require::lacks;
use rustix::process::Signal;

use crate::load::{Process, wait_for};
use crate::{VCPU, alone, probes};

/// Probes with the family attached.
fn sampling(slots: u16) -> Option<Probes> {
    let probes = probes(slots, AttachPolicy::Auto)?;
    let family = probes.families().iter().find(|f| f.family == "concurrency");
    let family = family.unwrap().clone();
    if family.source == Some("perf_event") {
        assert_eq!(family.reason, None);
        return Some(probes);
    }
    assert_eq!(family.source, Some("agent"));
    lacks("perf_event", family.reason.unwrap());
    None
}

/// The snapshots taken while waiting until one looks like that.
fn until(probes: &mut Probes, like: impl Fn(&Probes, &Snapshot) -> bool) -> Vec<Snapshot> {
    let mut all = Vec::new();
    assert!(
        wait_for(|| {
            all.extend(probes.take_snapshots().expect("snapshots"));
            all.last().is_some_and(|last| like(probes, last))
        }),
        "{} snapshots, the last {:?}",
        all.len(),
        all.last()
    );
    all
}

#[test]
fn a_snapshot_tells_who_is_active() {
    let _alone = alone();
    let Some(mut probes) = sampling(8) else {
        return;
    };
    let busy = [Process::busy(), Process::busy(), Process::busy()];
    let [spinner, stopped, emulator] = &busy;
    let other = tag::of(1, tag::role::EMULATOR);
    let slots = [(spinner, VCPU), (stopped, VCPU), (emulator, other)]
        .map(|(process, tag)| probes.register(process.tid(), tag).unwrap());
    stopped.signal(Signal::STOP);
    let look = |probes: &Probes, snapshot: &Snapshot, slots: &[Slot; 3]| {
        [0, 1, 2].map(|n| probes.active_in(&slots[n], snapshot))
    };
    let expected = [Activity::Active, Activity::Inactive, Activity::Absent];
    let all = until(&mut probes, |p, s| look(p, s, &slots) == expected);
    // One stands for the time since the one before.
    for pair in all.windows(2) {
        assert_eq!(pair[0].at_ns, pair[1].from_ns);
        assert!(pair[1].at_ns > pair[1].from_ns);
    }
    let seen = all.last().unwrap();
    let [first, ..] = slots;
    probes.release(first).unwrap();
    // The same thread anew: what was seen before is not of this registration.
    let again = probes.register(spinner.tid(), VCPU).unwrap();
    assert_eq!(probes.active_in(&again, seen), Activity::Absent);
    until(&mut probes, |p, s| {
        p.active_in(&again, s) == Activity::Active
    });
}

/// A reader that comes after more than the ring holds.
#[test]
fn overwritten_snapshots_are_counted() {
    let _alone = alone();
    let Some(mut probes) = sampling(4) else {
        return;
    };
    let ring = snapshot::RING as usize;
    let reason = |probes: &Probes| {
        let mut families = probes.families().iter();
        let family = families.find(|f| f.family == "concurrency");
        family.unwrap().reason.clone()
    };
    // More than 128 periods, unless the machine stood still meanwhile.
    let said = (0..4).find_map(|_| {
        std::thread::sleep(Duration::from_nanos(snapshot::PERIOD_NS) * (snapshot::RING + 10));
        let taken = probes.take_snapshots().expect("snapshots");
        let said = reason(&probes)?;
        assert!(taken.len() <= ring && taken.len() >= ring - 1);
        // The time of the lost ones is not the first one's.
        assert_eq!(taken[0].at_ns - taken[0].from_ns, snapshot::PERIOD_NS);
        Some(said)
    });
    let said = said.expect("a reason");
    assert!(said.contains("overwritten"), "{said}");
}

/// Slots beyond the first word, and the last of all.
#[test]
fn a_snapshot_holds_every_slot() {
    const SLOTS: u16 = 4096;
    let _alone = alone();
    let Some(mut probes) = sampling(SLOTS) else {
        return;
    };
    let meter = CostMeter::start();
    if let Err(error) = &meter {
        lacks("bpf_stats", format_args!("costs: {error}"));
    }
    let spinner = Process::busy();
    let mut slots = Vec::new();
    // Threads that may not exist: of most no event will come.
    let mut tids = (5_000..).filter(|tid| *tid != spinner.tid());
    for covered in [4, 1000, usize::from(SLOTS) - 1] {
        while slots.len() < covered {
            slots.push(probes.register(tids.next().unwrap(), VCPU).unwrap());
        }
        let there = |p: &Probes, s: &Snapshot| {
            let absent = |slot: &Slot| p.active_in(slot, s) == Activity::Absent;
            !slots.iter().any(absent)
        };
        until(&mut probes, there);
        if meter.is_ok() {
            let before = cost(&probes);
            assert!(wait_for(|| cost(&probes).0 >= before.0 + 40));
            let after = cost(&probes);
            let (runs, time) = (after.0 - before.0, after.1 - before.1);
            println!(
                "{covered} slots: {} ns a run",
                time.as_nanos() / u128::from(runs)
            );
        }
    }
    let last = probes.register(spinner.tid(), VCPU).unwrap();
    until(&mut probes, |p, s| {
        p.active_in(&last, s) == Activity::Active
    });
}

/// Runs of the program and their time.
fn cost(probes: &Probes) -> (u64, Duration) {
    let costs = probes.costs().unwrap();
    let cost = costs.iter().find(|c| c.family == "concurrency").unwrap();
    (cost.runs, cost.time)
}

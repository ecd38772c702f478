//! The probes on this host's kernel, against processes of known behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and print as tests do"
)]

mod blame;
mod load;
mod share;
mod snapshots;

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caps::CapSet;
use headroom_agent::probe::{
    AttachPolicy, ProbeError, ProbeOptions, Probes, Reading, Slot, ThreadState,
};
use headroom_tests::require::lacks;
use load::{Process, wait_for};
use rustix::process::Signal;

/// A vCPU of the first VM.
const VCPU: u32 = headroom_abi::tag::of(1, headroom_abi::tag::role::VCPU);

/// One test at a time: they compete for the same CPUs.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attached probes; `None` after a printed reason where the host can't.
fn probes(slots: u16, attach: AttachPolicy) -> Option<Probes> {
    match Probes::attach(&ProbeOptions {
        slots,
        vms: 8,
        attach,
    }) {
        Ok(probes) => Some(probes),
        Err(error) => {
            lacks("bpf", chain(&error));
            None
        }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn ready(r: &Reading) -> u64 {
    r.ready_wake_ns + r.ready_preempt_ns
}

#[test]
fn off_means_off() {
    let options = ProbeOptions {
        slots: 1,
        vms: 1,
        attach: AttachPolicy::Off,
    };
    assert!(matches!(
        Probes::attach(&options),
        Err(ProbeError::Disabled)
    ));
}

#[test]
fn a_sleeper_shows_no_ready() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let sleeper = Process::sleeping();
    assert!(wait_for(
        || sleeper.name() == "sleep" && sleeper.state() == 'S'
    ));
    let slot = probes.register(sleeper.tid(), VCPU).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let reading = probes.read(&slot);
    assert_eq!(reading.state, ThreadState::Sleeping);
    assert_eq!(
        (ready(&reading), reading.run_ns, reading.ready_open_ns),
        (0, 0, 0)
    );
}

#[test]
fn a_stopped_process_shows_no_ready() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let process = Process::busy();
    let slot = probes.register(process.tid(), VCPU).unwrap();
    process.signal(Signal::STOP);
    assert!(wait_for(
        || probes.read(&slot).state == ThreadState::Sleeping
    ));
    let before = probes.read(&slot);
    std::thread::sleep(Duration::from_millis(300));
    let after = probes.read(&slot);
    assert_eq!(
        (ready(&after), after.run_ns),
        (ready(&before), before.run_ns)
    );
    process.signal(Signal::CONT);
    assert!(wait_for(|| probes.read(&slot).run_ns > after.run_ns));
}

#[test]
fn an_exit_is_seen_and_the_pid_counts_no_more() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let process = Process::busy();
    let slot = probes.register(process.tid(), VCPU).unwrap();
    process.kill();
    assert!(wait_for(|| probes.read(&slot).state == ThreadState::Exited));
    let (before, after) = (probes.read(&slot), probes.read(&slot));
    assert_eq!(
        (before.run_ns, ready(&before)),
        (after.run_ns, ready(&after))
    );
    probes.release(slot).unwrap();
    assert_eq!(probes.slots_used(), 0);
}

#[test]
fn moves_between_cpus_are_counted_exactly() {
    let _alone = alone();
    if std::thread::available_parallelism().unwrap().get() < 2 {
        lacks("cpus", "one CPU only");
        return;
    }
    for policy in [AttachPolicy::TpBtf, AttachPolicy::RawTp] {
        let Some(mut probes) = probes(4, policy) else {
            return;
        };
        let process = Process::busy();
        process.pin(0);
        let slot = probes.register(process.tid(), VCPU).unwrap();
        for moves in 1..=20 {
            process.pin(usize::from(moves % 2 == 1));
            assert!(
                wait_for(|| probes.read(&slot).cpu_migrations >= moves),
                "move {moves}"
            );
            assert_eq!(probes.read(&slot).cpu_migrations, moves);
        }
        let nodes = probes.read(&slot).node_migrations;
        assert_eq!(nodes.is_some(), probes.numa_nodes() > 1);
    }
}

#[test]
fn slots_run_out_and_come_back() {
    let _alone = alone();
    let Some(mut probes) = probes(2, AttachPolicy::Auto) else {
        return;
    };
    let processes: Vec<_> = (0..3).map(|_| Process::sleeping()).collect();
    let first = probes.register(processes[0].tid(), VCPU).unwrap();
    let _second = probes.register(processes[1].tid(), VCPU).unwrap();
    let full = probes.register(processes[2].tid(), VCPU);
    assert!(
        matches!(full, Err(ProbeError::SlotsFull { capacity: 2 })),
        "{full:?}"
    );
    let again = probes.register(processes[1].tid(), VCPU);
    assert!(
        matches!(again, Err(ProbeError::AlreadyRegistered { .. })),
        "{again:?}"
    );
    assert_eq!((probes.slots_used(), probes.slots_capacity()), (2, 2));

    probes.release(first).unwrap();
    let mut third = None;
    assert!(wait_for(|| {
        third = probes.register(processes[2].tid(), VCPU).ok();
        third.is_some()
    }));
    // Nothing of the slot's former owner is left.
    let reading = probes.read(third.as_ref().unwrap());
    assert_eq!((reading.switches, reading.run_ns), (0, 0));
}

#[test]
fn pids_beyond_the_map_are_refused() {
    let _alone = alone();
    let Some(mut probes) = probes(2, AttachPolicy::Auto) else {
        return;
    };
    for tid in [0, u32::MAX] {
        let refused = probes.register(tid, VCPU);
        assert!(
            matches!(refused, Err(ProbeError::PidOutOfRange { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(probes.slots_used(), 0);
}

#[test]
fn probes_outlive_the_capabilities() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let process = Process::busy();
    // Capabilities belong to a thread: the other tests keep theirs.
    std::thread::scope(|scope| {
        let dropped = scope.spawn(|| {
            for set in [CapSet::Effective, CapSet::Permitted] {
                caps::clear(None, set).unwrap();
            }
            let options = ProbeOptions {
                vms: 8,
                slots: 1,
                attach: AttachPolicy::Auto,
            };
            let refused = Probes::attach(&options).err().unwrap();
            assert!(refused.to_string().contains("CAP_BPF"), "{refused}");
            let slot = probes.register(process.tid(), VCPU).unwrap();
            assert!(wait_for(|| probes.read(&slot).run_ns > 0));
            probes.release(slot).unwrap();
        });
        dropped.join().unwrap();
    });
}

#[test]
fn counters_never_fall() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let processes = [Process::busy(), Process::busy(), Process::napping()];
    for process in &processes {
        process.pin(0);
    }
    let slots: Vec<Slot> = processes
        .iter()
        .map(|p| probes.register(p.tid(), VCPU).unwrap())
        .collect();
    let mut last: Vec<_> = slots
        .iter()
        .map(|slot| counters(&probes.read(slot)))
        .collect();
    for _ in 0..100_000 {
        for (slot, last) in slots.iter().zip(&mut last) {
            let now = counters(&probes.read(slot));
            assert!(
                now.iter().zip(last.iter()).all(|(now, last)| now >= last),
                "{last:?} {now:?}"
            );
            *last = now;
        }
    }
}

#[test]
fn dropped_probes_leave_nothing() {
    let _alone = alone();
    let Some(first) = probes(1, AttachPolicy::Auto) else {
        return;
    };
    assert!(bpf_files() > 0 && bpf_mappings() > 0);
    drop(first);
    for _ in 0..5 {
        drop(probes(1, AttachPolicy::Auto));
    }
    // Nothing is pinned: without a file no program and no map lives on.
    assert_eq!((bpf_files(), bpf_mappings()), (0, 0));
}

/// Programs, links and maps that this process holds.
fn bpf_files() -> usize {
    let files = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let infos = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let kinds = ["map_type:", "prog_type:", "link_type:"];
    infos
        .filter(|info| kinds.iter().any(|kind| info.contains(kind)))
        .count()
}

fn bpf_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("bpf-map")).count()
}

fn counters(r: &Reading) -> [u64; 10] {
    [
        r.at_ns,
        r.run_ns,
        r.ready_wake_ns,
        r.ready_preempt_ns,
        r.ready_max_ns,
        r.switches,
        r.wakeups,
        r.cpu_migrations,
        r.hist_wake.iter().sum(),
        r.hist_preempt.iter().sum(),
    ]
}

#[test]
fn host_totals_move() {
    let _alone = alone();
    let Some(probes) = probes(1, AttachPolicy::Auto) else {
        return;
    };
    let _process = Process::napping();
    let sums = || {
        let cpus = probes.cpus();
        let sum = |f: fn(&headroom_abi::sched::CpuStats) -> u64| cpus.iter().map(f).sum::<u64>();
        (sum(|c| c.switches), sum(|c| c.wakeups))
    };
    let before = sums();
    assert!(wait_for(|| {
        let now = sums();
        now.0 > before.0 + 10 && now.1 > before.1 + 5
    }));
}

//! Who had the CPU that a thread waited for, against causes made here.

use std::time::Duration;

use headroom_abi::blame::kind;
use headroom_abi::tag::{self, role};
use headroom_agent::probe::{AttachPolicy, Probes, Reading, Slot};

use crate::load::{Cgroup, Process, wait_for};
use crate::{alone, probes, ready};

const WINDOW: Duration = Duration::from_millis(1500);

/// vCPU of VM number `vm`.
const fn vcpu(vm: u16) -> u32 {
    tag::of(vm, role::VCPU)
}

/// What happened to a thread between two readings.
struct Span {
    ready: u64,
    blame: [u64; 8],
}

impl Span {
    fn share(&self, kind: usize) -> f64 {
        part(self.blame[kind], self.ready)
    }
}

#[expect(clippy::cast_precision_loss, reason = "ns of a window of seconds")]
fn part(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn watch(probes: &Probes, slot: &Slot, time: Duration) -> (Reading, Span) {
    let before = probes.read(slot);
    std::thread::sleep(time);
    let after = probes.read(slot);
    let span = Span {
        ready: ready(&after) - ready(&before),
        blame: std::array::from_fn(|k| after.blame_ns[k] - before.blame_ns[k]),
    };
    (after, span)
}

/// A victim and a neighbour on CPU 0, outweighing everything else.
/// The group is the last to be dropped, empty.
fn pair(name: &str) -> (Option<Cgroup>, Process, Process) {
    let cgroup = Cgroup::heaviest(name);
    let pair = [Process::busy(), Process::busy()];
    for process in &pair {
        process.pin(0);
        if let Some(cgroup) = &cgroup {
            cgroup.add(process).unwrap();
        }
    }
    let [victim, neighbour] = pair;
    (cgroup, victim, neighbour)
}

#[test]
fn another_vm_is_named_tp_btf() {
    another_vm_is_named(AttachPolicy::TpBtf);
}

#[test]
fn another_vm_is_named_raw_tp() {
    another_vm_is_named(AttachPolicy::RawTp);
}

fn another_vm_is_named(policy: AttachPolicy) {
    let _alone = alone();
    let Some(mut probes) = probes(4, policy) else {
        return;
    };
    let (_cgroup, victim, neighbour) = pair(probes.source());
    let slot = probes.register(victim.tid(), vcpu(1)).unwrap();
    let other = probes.register(neighbour.tid(), vcpu(7)).unwrap();
    assert!(wait_for(|| probes.read(&other).switches > 4));
    let cells = |probes: &Probes, reading: &Reading| {
        let open = reading.open_vms.iter().map(|(_, ns)| ns).sum::<u64>();
        let cells = probes.blamed(1);
        assert!(cells.iter().all(|(vm, _)| *vm == 7), "{cells:?}");
        cells.iter().map(|(_, ns)| ns).sum::<u64>() + open
    };
    let first = probes.read(&slot);
    let before = cells(&probes, &first);
    let (last, span) = watch(&probes, &slot, WINDOW);
    let cell = cells(&probes, &last) - before;
    assert!(span.share(kind::VM) > 0.9, "{:?}", span.blame);
    // The row sums to the victim's ready, and its cell is what the kind says.
    let sum: u64 = span.blame.iter().sum();
    assert!(
        (part(sum, span.ready) - 1.0).abs() < 0.02,
        "{sum} of {}",
        span.ready
    );
    assert!(
        (part(cell, span.blame[kind::VM]) - 1.0).abs() < 0.02,
        "{cell}"
    );
}

#[test]
fn a_vms_own_threads_are_itself() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let (_cgroup, victim, sibling) = pair("blame-self");
    let slot = probes.register(victim.tid(), vcpu(1)).unwrap();
    let other = probes
        .register(sibling.tid(), tag::of(1, role::IOTHREAD))
        .unwrap();
    assert!(wait_for(|| probes.read(&other).switches > 4));
    let (_, span) = watch(&probes, &slot, WINDOW);
    assert!(span.share(kind::OWN) > 0.9, "{:?}", span.blame);
    assert_eq!(probes.blamed(1), []);
}

#[test]
fn a_task_of_the_host_is_named() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let (_cgroup, victim, daemon) = pair("blame-host");
    let slot = probes.register(victim.tid(), vcpu(1)).unwrap();
    assert!(wait_for(|| probes.read(&slot).switches > 4));
    let (last, span) = watch(&probes, &slot, WINDOW);
    assert!(span.share(kind::HOST) > 0.9, "{:?}", span.blame);
    assert_eq!(last.host_pid, daemon.tid());
}

/// A waker on another CPU than a pinned sleeper: its CPU idles until the
/// wake-up reaches it. Little time, but all of it has a name.
#[test]
fn every_wait_has_an_owner() {
    let _alone = alone();
    let Some(mut probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let napper = Process::napping();
    let slot = probes.register(napper.tid(), vcpu(1)).unwrap();
    assert!(wait_for(|| probes.read(&slot).switches > 20));
    // A switch that no program saw looks like an open wait until the next tick.
    // A reading meanwhile is too far ahead, and both figures stand until their
    // truths catch up.
    let mut spans = Vec::new();
    let found = (0..10).any(|_| {
        let (_, span) = watch(&probes, &slot, WINDOW);
        let sum: u64 = span.blame.iter().sum();
        let found = span.ready > 0 && (part(sum, span.ready) - 1.0).abs() < 0.02;
        spans.push((sum, span.ready, span.share(kind::UNKNOWN)));
        found
    });
    assert!(found, "{spans:?}");
    assert!(
        spans.iter().all(|(.., unknown)| *unknown < 0.02),
        "{spans:?}"
    );
}

/// 20 ms of every 100 ms: throttled for the rest, and no wait.
#[test]
fn a_quota_is_throttled_not_ready() {
    let _alone = alone();
    for policy in [AttachPolicy::TpBtf, AttachPolicy::RawTp] {
        let Some(mut probes) = probes(4, policy) else {
            return;
        };
        let Some(cgroup) = Cgroup::heaviest("quota") else {
            return;
        };
        cgroup.quota(20_000, 100_000);
        let process = Process::busy();
        cgroup.add(&process).unwrap();
        let slot = probes.register(process.tid(), vcpu(1)).unwrap();
        assert!(wait_for(|| probes.read(&slot).throttled_ns > Some(0)));
        let before = probes.read(&slot);
        std::thread::sleep(WINDOW * 2);
        let after = probes.read(&slot);
        let window = after.at_ns - before.at_ns;
        let throttled = after.throttled_ns.unwrap() - before.throttled_ns.unwrap();
        let (run, waited) = (after.run_ns - before.run_ns, ready(&after) - ready(&before));
        // The kernel's own count for the cgroup, one thread in it.
        let figures = format!("run {run} ready {waited} throttled {throttled} of {window}");
        assert!((part(run, window) - 0.2).abs() < 0.05, "{figures}");
        assert!((part(throttled, window) - 0.8).abs() < 0.06, "{figures}");
        assert!(part(waited, window) < 0.05, "{figures}");
        let sum = run + waited + throttled;
        assert!(part(sum.abs_diff(window), window) < 0.005, "{figures}");
    }
}

/// Three busy threads on one CPU: two wait at any time.
#[test]
fn the_run_queue_is_two_deep() {
    let _alone = alone();
    let Some(probes) = probes(4, AttachPolicy::Auto) else {
        return;
    };
    let irq = probes
        .families()
        .iter()
        .find(|f| f.family == "irq")
        .unwrap();
    assert!(irq.source.is_some(), "{irq:?}");
    let cgroup = Cgroup::heaviest("depth");
    let three = [Process::busy(), Process::busy(), Process::busy()];
    for process in &three {
        process.pin(0);
        if let Some(cgroup) = &cgroup {
            cgroup.add(process).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    let read = |probes: &Probes| {
        let cpu = probes.cpus()[0];
        (cpu.depth_ns, cpu.depth_at_ns)
    };
    let mut depths = Vec::new();
    let found = wait_for(|| {
        let before = read(&probes);
        std::thread::sleep(Duration::from_millis(500));
        let after = read(&probes);
        let depth = part(after.0 - before.0, after.1 - before.1);
        depths.push(depth);
        // Others may wait behind them for a while: the machine is shared.
        (1.9..2.1).contains(&depth)
    });
    assert!(found, "depths {depths:?}");
    assert!(depths.iter().all(|depth| *depth > 1.9), "depths {depths:?}");
}

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use headroom_abi::sched::CpuStats;
use headroom_abi::snapshot::activity::{ACTIVE, INACTIVE, UNKNOWN};
use headroom_core::batch::ColumnData;

use super::*;
use crate::discover::fake::FakeProc;
use crate::probe::{Activity, Snapshot};
use crate::source::{Detail, Reading, RegisterError, ThreadSource};

const SECOND: u64 = 1_000_000_000;

/// Probes whose threads run and wait as the test says.
#[derive(Clone, Default)]
struct Script(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    now_ns: u64,
    threads: BTreeMap<u32, Reading>,
    registered: BTreeSet<u32>,
    capacity: usize,
    snapshots: Option<Vec<Snapshot>>,
}

impl Script {
    fn new(capacity: usize) -> Self {
        let script = Self::default();
        script.0.borrow_mut().capacity = capacity;
        script
    }

    /// One second in which a thread runs and waits that many ms.
    fn second(&self, figures: &[(u32, u64, u64)]) {
        let mut state = self.0.borrow_mut();
        state.now_ns += SECOND;
        for (tid, run_ms, ready_ms) in figures {
            let thread = state.threads.entry(*tid).or_default();
            thread.run_ns += run_ms * 1_000_000;
            thread.ready_ns += ready_ms * 1_000_000;
            let detail = thread.detail.get_or_insert_with(Box::<Detail>::default);
            detail.ready_preempt_ns = thread.ready_ns;
            detail.hist.record(ready_ms * 1_000_000, 1);
        }
    }
}

impl ThreadSource for Script {
    type Handle = u32;

    fn name(&self) -> &'static str {
        "tp_btf"
    }

    fn register(&mut self, _: u32, tid: u32, _: u32) -> Result<u32, RegisterError> {
        let mut state = self.0.borrow_mut();
        if state.registered.len() >= state.capacity {
            return Err(RegisterError::Full);
        }
        assert!(
            state.registered.insert(tid),
            "thread {tid} registered twice"
        );
        Ok(tid)
    }

    fn release(&mut self, tid: u32) {
        assert!(
            self.0.borrow_mut().registered.remove(&tid),
            "thread {tid} released twice"
        );
    }

    fn read(&self, tid: &u32) -> Option<Reading> {
        let state = self.0.borrow();
        let reading = state.threads.get(tid).cloned().unwrap_or_default();
        let detail = Some(reading.detail.unwrap_or_default());
        Some(Reading {
            at_ns: state.now_ns,
            clock_skews: Some(0),
            detail,
            ..reading
        })
    }
}

impl HostSource for Script {
    fn cpus(&self) -> Vec<CpuStats> {
        vec![CpuStats::default(); 2]
    }

    fn blamed(&self, _: u16) -> Vec<(u16, u64)> {
        Vec::new()
    }

    fn active(&self, _: &u32) -> Activity {
        Activity::Active
    }

    fn take_snapshots(&mut self) -> Option<Vec<Snapshot>> {
        self.0.borrow_mut().snapshots.take()
    }

    fn active_in(&self, tid: &u32, snapshot: &Snapshot) -> Activity {
        snapshot.of_number(tid - 50)
    }

    fn families(&self) -> Vec<FamilyStatus> {
        Vec::new()
    }

    fn slots_used(&self) -> usize {
        self.0.borrow().registered.len()
    }

    fn slots_capacity(&self) -> usize {
        self.0.borrow().capacity
    }
}

fn sampler(proc: &FakeProc, script: &Script) -> Sampler<Script> {
    let options = SamplerOptions {
        proc: proc.path().into(),
        kvm_debug: proc.path().join("kvm"),
        ..SamplerOptions::new("h1".into())
    };
    Sampler::with_source(options, Some(script.clone()), None)
}

fn vm(proc: &FakeProc, pid: u32, name: &str, start: u64) {
    proc.process(
        pid,
        "qemu-system-x86",
        start,
        &format!("qemu-system-x86_64 -m 64 -name guest={name}"),
    );
    proc.thread(pid, pid + 1, "CPU 0/KVM", start);
    proc.thread(pid, pid + 2, "CPU 1/KVM", start);
    proc.thread(pid, pid + 3, "IO io1", start);
}

fn kinds(window: &Window) -> Vec<&str> {
    window.events.iter().map(|e| e.kind.as_str()).collect()
}

#[test]
fn rows_of_a_window() {
    let (proc, script) = (FakeProc::new(), Script::new(100));
    vm(&proc, 50, "a", 100);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    for _ in 0..10 {
        script.second(&[(51, 400, 500), (52, 100, 0), (53, 20, 10), (50, 5, 1)]);
        sampler.tick();
    }
    let window = sampler.window(7);
    assert_eq!(kinds(&window), ["agent_started", "vm_started"]);
    let v = &window.vcpus[0];
    assert_eq!(
        (v.ts, v.vcpu, v.tid, v.window_ns, v.run_ns),
        (7, 0, 51, 10_000_000_000, 4_000_000_000)
    );
    assert_eq!(
        (v.ready_ns, v.wait_ns, v.ready_ratio),
        (5_000_000_000, 1_000_000_000, 0.5)
    );
    assert_eq!(
        (v.ready_wake_ns, v.ready_preempt_ns),
        (Some(0), Some(5_000_000_000))
    );
    assert_eq!(
        (v.node_migrations, v.throttled_ns, v.source.as_str()),
        (None, None, "tp_btf")
    );
    let m = &window.vms[0];
    assert_eq!(
        (m.vcpus, m.run_ns, m.ready_ns, m.wait_ns),
        (2, 5_000_000_000, 5_000_000_000, 10_000_000_000)
    );
    assert_eq!(
        (m.ready_ratio, m.ready_max_ratio, m.memory_bytes),
        (0.25, 0.5, Some(64 << 20))
    );
    assert_eq!(
        (m.iothread_run_ns, m.iothread_ready_ns),
        (200_000_000, 100_000_000)
    );
    assert_eq!(
        (m.emulator_run_ns, m.emulator_ready_ns),
        (50_000_000, 10_000_000)
    );
    let h = &window.hosts[0];
    assert_eq!(
        (h.vms, h.vcpus, h.vm_ready_ns, h.slots_used, h.unregistered),
        (1, 2, 5_000_000_000, Some(4), 0)
    );
    // The next window starts where this one ended.
    script.second(&[(51, 300, 0)]);
    sampler.tick();
    let window = sampler.window(8);
    assert_eq!(
        (window.vcpus[0].window_ns, window.vcpus[0].run_ns),
        (1_000_000_000, 300_000_000)
    );
    assert!(window.events.is_empty());
    assert_eq!(window.chunks().len(), 3);
}

#[test]
fn a_vm_that_ends_gives_a_final_row_and_its_slots_back() {
    let (proc, script) = (FakeProc::new(), Script::new(100));
    vm(&proc, 50, "a", 100);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    for _ in 0..3 {
        script.second(&[(51, 400, 500)]);
        sampler.tick();
    }
    proc.remove("50");
    script.second(&[(51, 9_999, 0)]);
    sampler.tick();
    assert_eq!(script.slots_used(), 0);
    let window = sampler.window(1);
    assert_eq!(
        (window.vcpus[0].window_ns, window.vcpus[0].run_ns),
        (3 * 1_000_000_000, 1_200_000_000)
    );
    assert_eq!(kinds(&window).last(), Some(&"vm_stopped"));
    assert_eq!(window.hosts[0].vms, 0);
    let window = sampler.window(2);
    assert!(window.vcpus.is_empty() && window.vms.is_empty());
}

#[test]
fn a_reused_pid_gives_two_vms_in_one_window() {
    let (proc, script) = (FakeProc::new(), Script::new(4));
    vm(&proc, 50, "a", 100);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    script.second(&[(51, 100, 0)]);
    sampler.tick();
    proc.remove("50");
    proc.write("keep/x", "");
    // The same numbers, all slots taken: works only if the old ones go first.
    vm(&proc, 50, "b", 200);
    script.second(&[]);
    sampler.tick();
    script.second(&[(51, 700, 0)]);
    sampler.tick();
    let window = sampler.window(1);
    let runs: BTreeMap<&str, i64> = window
        .vms
        .iter()
        .map(|v| (v.vm_name.as_str(), v.run_ns))
        .collect();
    assert_eq!(
        runs,
        BTreeMap::from([("a", 100_000_000), ("b", 700_000_000)])
    );
    assert_eq!(window.hosts[0].unregistered, 0);
}

#[test]
fn threads_without_a_slot_fall_back_and_come_back() {
    let (proc, script) = (FakeProc::new(), Script::new(2));
    // Our own process as the VMM: its schedstat is real.
    let pid = std::process::id();
    proc.process(
        pid,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=own",
    );
    proc.thread(pid, pid, "CPU 0/KVM", 100);
    vm(&proc, 4_000_000, "big", 50);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    script.second(&[]);
    sampler.tick();
    let window = sampler.window(1);
    let own = |w: &Window| {
        w.vcpus
            .iter()
            .find(|v| v.vm_name == "own")
            .cloned()
            .unwrap()
    };
    assert_eq!(own(&window).source, "schedstat");
    assert_eq!(
        (own(&window).ready_hist, own(&window).ready_max_ns),
        (None, None)
    );
    assert_eq!(
        window
            .vms
            .iter()
            .find(|v| v.vm_name == "own")
            .unwrap()
            .source,
        "schedstat"
    );
    assert_eq!(
        (window.hosts[0].unregistered, window.hosts[0].slots_used),
        (1, Some(2))
    );
    proc.remove("4000000");
    sampler.tick();
    // Still schedstat until the window's end, then a slot.
    assert_eq!(own(&sampler.window(2)).source, "schedstat");
    script.second(&[(pid, 250, 0)]);
    sampler.tick();
    let window = sampler.window(3);
    assert_eq!(
        (own(&window).source.as_str(), own(&window).run_ns),
        ("tp_btf", 250_000_000)
    );
    assert_eq!(window.hosts[0].unregistered, 0);
}

#[test]
fn a_late_named_vcpu_is_no_emulator_for_long() {
    let (proc, script) = (FakeProc::new(), Script::new(100));
    vm(&proc, 50, "a", 100);
    proc.thread(50, 59, "qemu-system-x86", 101);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    script.second(&[(59, 10, 0)]);
    proc.thread(50, 59, "CPU 2/KVM", 101);
    sampler.tick();
    script.second(&[(59, 600, 0)]);
    sampler.tick();
    let window = sampler.window(1);
    assert_eq!(
        window.vcpus.iter().find(|v| v.vcpu == 2).unwrap().run_ns,
        610_000_000
    );
    assert_eq!(window.vms[0].emulator_run_ns, 0);
}

/// A directory that another process's will take the place of, kept so that
/// the new one gets another inode, as in the kernel.
fn forget(proc: &FakeProc, path: &str) {
    std::fs::create_dir_all(proc.path().join("old")).unwrap();
    let to = proc.path().join("old").join(path.replace('/', "."));
    std::fs::rename(proc.path().join(path), to).unwrap();
}

#[test]
fn a_thread_id_goes_from_one_live_vm_to_another() {
    let (proc, script) = (FakeProc::new(), Script::new(100));
    vm(&proc, 50, "a", 100);
    vm(&proc, 60, "b", 200);
    proc.thread(60, 69, "CPU 2/KVM", 200);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    script.second(&[(69, 700, 0)]);
    sampler.tick();
    // a, which is looked at first, gets the number before b gave it back.
    forget(&proc, "60/task/69");
    proc.thread(50, 69, "CPU 2/KVM", 300);
    sampler.tick();
    script.second(&[(69, 20, 0)]);
    sampler.tick();
    let window = sampler.window(1);
    let of = |name: &str| {
        let rows = window.vcpus.iter();
        let mut rows = rows.filter(|v| v.vm_name == name && v.vcpu == 2);
        rows.next()
            .map(|v| (v.tid, v.run_ns, v.source.as_str()))
            .unwrap()
    };
    assert_eq!(of("a"), (69, 20_000_000, "tp_btf"));
    assert_eq!(of("b"), (69, 700_000_000, "tp_btf"));
}

#[test]
fn a_vm_replaced_between_two_scans_by_one_of_the_same_uuid() {
    const UUID: &str = "5a9fc181-957e-5c32-9e5a-2de5e9673531";
    let (proc, script) = (FakeProc::new(), Script::new(100));
    let start = |ticks| {
        let cmdline = format!("qemu-system-x86_64 -m 64 -name guest=a -uuid {UUID}");
        proc.process(50, "qemu-system-x86", ticks, &cmdline);
        proc.thread(50, 51, "CPU 0/KVM", ticks);
    };
    start(100);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    script.second(&[(51, 900, 0)]);
    sampler.tick();
    // Even the numbers of process and thread are the same.
    forget(&proc, "50");
    start(300);
    sampler.tick();
    script.second(&[(51, 30, 0)]);
    sampler.tick();
    let window = sampler.window(1);
    let mut runs: Vec<i64> = window.vms.iter().map(|v| v.run_ns).collect();
    runs.sort_unstable();
    assert_eq!(runs, [30_000_000, 900_000_000]);
    assert!(window.vms.iter().all(|v| v.vm_id == UUID));
    assert_eq!(
        kinds(&window),
        ["agent_started", "vm_started", "vm_stopped", "vm_started"]
    );
}

/// Rows of `vm_concurrency`: vCPUs active, and for how long.
fn concurrency(window: &Window) -> Vec<(i64, i64)> {
    let chunks = window.chunks();
    let mut of = chunks.iter().filter(|c| c.table.name == "vm_concurrency");
    let Some(chunk) = of.next() else {
        return Vec::new();
    };
    assert!(of.next().is_none(), "one VM");
    let column = |name| match &chunk.columns[chunk.table.position(name).unwrap()] {
        ColumnData::Int(values) => values.iter().map(|v| v.unwrap()).collect(),
        other => panic!("{other:?}"),
    };
    let (active, time): (Vec<_>, Vec<_>) = (column("active"), column("time_ns"));
    active.into_iter().zip(time).collect()
}

#[test]
fn snapshots_of_the_kernel_stand_for_the_time_before_them() {
    let (proc, script) = (FakeProc::new(), Script::new(100));
    vm(&proc, 50, "a", 100);
    let mut sampler = sampler(&proc, &script);
    let snapshots = |made: Vec<Snapshot>| script.0.borrow_mut().snapshots = Some(made);
    snapshots(Vec::new());
    sampler.tick();
    assert!(sampler.kernel_samples());
    // The first is of before the VM was there, the second reaches back to it.
    let t = clock::monotonic_ns();
    snapshots(vec![
        Snapshot::made((0, 1), &[(1, ACTIVE), (2, ACTIVE)]),
        Snapshot::made((1, t), &[(1, ACTIVE), (2, INACTIVE), (3, ACTIVE)]),
        Snapshot::made((t, t + 50), &[(1, ACTIVE), (2, ACTIVE)]),
        // One that no event was seen of, and one that was registered later.
        Snapshot::made((t + 50, t + 53), &[(1, UNKNOWN)]),
        // Neither was there.
        Snapshot::made((t + 53, t + 1_000), &[(3, ACTIVE)]),
        // Some in between were lost.
        Snapshot::made((t + 2_000, t + 2_007), &[(1, INACTIVE), (2, INACTIVE)]),
    ]);
    sampler.sample();
    sampler.tick();
    let rows = concurrency(&sampler.window(1));
    let (one, time) = rows[1];
    assert_eq!((&rows[..1], &rows[2..]), (&[(0, 10)][..], &[(2, 50)][..]));
    // Less than since the sampler was made.
    assert!(one == 1 && time > 0 && time < 60_000_000_000, "{rows:?}");
    assert!(!sampler.kernel_samples(), "the script has no more");
}

#[test]
fn without_snapshots_the_agent_looks_itself() {
    let (proc, script) = (FakeProc::new(), Script::new(100));
    vm(&proc, 50, "a", 100);
    let mut sampler = sampler(&proc, &script);
    sampler.tick();
    assert!(!sampler.kernel_samples());
    std::thread::sleep(std::time::Duration::from_millis(1));
    sampler.sample();
    let rows = concurrency(&sampler.window(1));
    assert!(rows.len() == 1 && rows[0].0 == 2, "{rows:?}");
    assert!(rows[0].1 >= 1_000_000, "{rows:?}");
}

#[test]
fn without_probes_it_says_why() {
    let proc = FakeProc::new();
    let options = SamplerOptions {
        proc: proc.path().into(),
        kvm_debug: proc.path().join("kvm"),
        ..SamplerOptions::new("h1".into())
    };
    let mut sampler = Sampler::<Script>::with_source(options, None, Some("no BTF".into()));
    assert_eq!(
        (sampler.degraded(), sampler.source()),
        (Some("no BTF"), "schedstat")
    );
    sampler.tick();
    let window = sampler.window(1);
    assert_eq!(kinds(&window), ["agent_started", "agent_degraded"]);
    let h = &window.hosts[0];
    assert_eq!(
        (h.source.as_str(), h.slots_used, h.wakeups, h.clock_skews),
        ("schedstat", None, None, None)
    );
    assert!(h.idle_ns.is_some() && h.memory_bytes > 0 && h.threads > 0);
}

use std::sync::{Arc, Mutex};

use headroom_abi::hist::{self, BUCKETS};
use headroom_abi::virtio::wake;
use headroom_core::batch::ColumnData;

use super::*;
use crate::discover::VmKey;
use crate::discover::cmdline::{self, Vmm};
use crate::sampler::SceneVm;

/// What the programs would have counted.
#[derive(Default)]
struct Counted {
    slots: HashMap<u32, u32>,
    stats: HashMap<u32, QueueStats>,
    bells: Vec<(DoorbellKey, Doorbell)>,
    at_ns: u64,
    without_kvm: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Counted>>);

impl Fake {
    fn with<T>(&self, change: impl FnOnce(&mut Counted) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn stats(&self, slot: u32, change: impl FnOnce(&mut QueueStats)) {
        self.with(|c| change(c.stats.entry(slot).or_insert(QueueStats::EMPTY)));
    }
}

impl QueueSource for Fake {
    fn slot(&self, tid: u32) -> Option<u32> {
        self.with(|c| c.slots.get(&tid).copied())
    }

    fn read(&self, slot: u32) -> (QueueStats, u64) {
        self.with(|c| {
            let stats = c.stats.get(&slot).copied().unwrap_or(QueueStats::EMPTY);
            (stats, c.at_ns)
        })
    }

    fn doorbells(&self) -> Vec<(DoorbellKey, Doorbell)> {
        self.with(|c| c.bells.clone())
    }

    fn forget(&mut self, vm: u16) {
        self.with(|c| c.bells.retain(|(key, _)| key.vm != u64::from(vm)));
    }

    fn scheduler(&self) -> &'static str {
        "tp_btf"
    }

    fn without_kvm(&self) -> Option<&str> {
        self.with(|c| c.without_kvm)
    }
}

const MAIN: u32 = 100;
const IO: u32 = 101;
const VCPU: u32 = 102;

fn vm() -> Vm {
    let thread = |tid, role| VmThread {
        key: ThreadKey {
            tid,
            start_ticks: 1,
        },
        pid: MAIN,
        role,
    };
    Vm {
        key: VmKey {
            boot: "boot".into(),
            pid: MAIN,
            start_ticks: 1,
            uuid: None,
        },
        info: Arc::new(cmdline::parse(
            Vmm::Qemu,
            &["qemu".to_owned(), "-name".to_owned(), "guest".to_owned()],
            MAIN,
        )),
        id: "guest@1".into(),
        threads: vec![
            thread(VCPU, Role::Vcpu(0)),
            thread(IO, Role::IoThread),
            thread(MAIN, Role::Emulator),
        ],
    }
}

struct Lab {
    fake: Fake,
    family: Virtio,
    vm: Vm,
    proc: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self::of(1)
    }

    /// A VM whose vCPU made that many traced writes.
    fn of(writes: u64) -> Self {
        let fake = Fake::default();
        fake.with(|c| c.slots = [(MAIN, 1), (IO, 2), (VCPU, 3)].into());
        let proc = tempfile::tempdir().unwrap();
        for (tid, comm) in [(MAIN, "guest"), (IO, "IO io1")] {
            let dir = proc.path().join(format!("{MAIN}/task/{tid}"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        }
        fake.stats(3, |s| s.writes = writes);
        let family = Virtio::new(Ok(Box::new(fake.clone())), proc.path().into());
        let mut lab = Self {
            fake,
            family,
            vm: vm(),
            proc,
        };
        assert_eq!(lab.window(true).rows(), 0, "its window begins here");
        lab
    }

    fn tick(&mut self) {
        self.fake.with(|c| c.at_ns += 1_000_000);
        let vm = SceneVm {
            vm: &self.vm,
            index: Some(7),
            live: true,
        };
        self.family.tick(&Scene { vms: vec![vm] });
    }

    fn window(&mut self, live: bool) -> Chunk {
        self.fake.with(|c| c.at_ns += 1_000_000);
        let scene = Scene {
            vms: vec![SceneVm {
                vm: &self.vm,
                index: Some(7),
                live,
            }],
        };
        self.family.tick(&scene);
        let frame = Frame {
            ts: 1,
            host: "here",
        };
        self.family.window(&frame, &scene).remove(0)
    }
}

fn ints(chunk: &Chunk, column: &str) -> Vec<Option<i64>> {
    match &chunk.columns[chunk.table.position(column).unwrap()] {
        ColumnData::Int(values) => values.clone(),
        other => panic!("{column}: {other:?}"),
    }
}

fn int_of(chunk: &Chunk, column: &str) -> Option<i64> {
    let values = ints(chunk, column);
    assert_eq!(values.len(), 1, "{column}");
    values[0]
}

fn texts(chunk: &Chunk, column: &str) -> Vec<String> {
    match &chunk.columns[chunk.table.position(column).unwrap()] {
        ColumnData::Text(values) => values.iter().flatten().cloned().collect(),
        other => panic!("{column}: {other:?}"),
    }
}

fn counted(counts: &mut [u32; BUCKETS], ns: u64, n: u32) {
    let bucket = &mut counts[hist::index(ns)];
    *bucket = bucket.wrapping_add(n);
}

fn bell(address: u64, writes: u64, exits: u64, wakes: u64) -> (DoorbellKey, Doorbell) {
    let key = DoorbellKey { address, vm: 7 };
    let bell = Doorbell {
        writes,
        exits,
        wakes,
        slot: 2,
    };
    (key, bell)
}

#[test]
fn kicks_are_counted_for_the_thread_they_woke() {
    let mut lab = Lab::new();
    assert_eq!(lab.window(true).rows(), 0, "nobody serves a queue yet");
    lab.fake.stats(2, |s| {
        counted(&mut s.pickup, 20_000, 9);
        (s.pickup_ns, s.pickup_max_ns) = (180_000, 21_000);
        counted(&mut s.completion, 10_000, 4);
        s.completion_ns = 40_000;
        s.injected = 10;
        counted(&mut s.inject, 30_000, 8);
    });
    lab.fake
        .with(|c| c.bells = vec![bell(0xfe00_7000, 12, 2, 9), bell(0xfe00_7004, 5, 0, 1)]);
    let rows = lab.window(true);
    assert_eq!(texts(&rows, "backend"), ["io1"]);
    assert_eq!(texts(&rows, "kind"), ["iothread"]);
    assert_eq!(texts(&rows, "source"), ["tp_btf+kvm"]);
    assert_eq!(int_of(&rows, "tid"), Some(i64::from(IO)));
    // Two of the writes went to user space; of the others five woke nobody.
    assert_eq!(int_of(&rows, "kicks"), Some(15));
    assert_eq!(int_of(&rows, "polled"), Some(5));
    assert_eq!(int_of(&rows, "wakes"), Some(9));
    assert_eq!(int_of(&rows, "pickups"), Some(9));
    assert_eq!(int_of(&rows, "pickup_ns"), Some(180_000));
    assert_eq!(int_of(&rows, "pickup_max_ns"), Some(21_000));
    assert_eq!(int_of(&rows, "completions"), Some(4));
    assert_eq!(
        (int_of(&rows, "injects"), int_of(&rows, "inject_wakes")),
        (Some(10), Some(8))
    );
    let quiet = lab.window(true);
    for column in ["kicks", "polled", "wakes", "pickups", "pickup_max_ns"] {
        assert_eq!(int_of(&quiet, column), Some(0), "{column}");
    }
}

#[test]
fn a_stalled_backend_shows_by_its_name_while_it_stalls() {
    let mut lab = Lab::new();
    // Woken at 1.5 ms and not switched in since.
    lab.fake
        .stats(2, |s| s.woken = (1_500_000 & !wake::MASK) | wake::KICK);
    let rows = lab.window(true);
    assert_eq!(texts(&rows, "backend"), ["io1"]);
    assert_eq!(
        (int_of(&rows, "wakes"), int_of(&rows, "pickups")),
        (Some(1), Some(0))
    );
    let pending = int_of(&rows, "pending_ns").unwrap();
    assert!((500_000..500_008).contains(&pending), "{pending}");
    let later = lab.window(true);
    assert_eq!(int_of(&later, "pending_ns"), Some(pending + 1_000_000));
    assert_eq!(int_of(&later, "pickup_max_ns"), Some(pending + 1_000_000));
    assert_eq!(int_of(&later, "wakes"), Some(0), "the same kick");
    lab.fake.stats(2, |s| {
        s.woken = 0;
        counted(&mut s.pickup, 2_000_000, 1);
        (s.pickup_ns, s.pickup_max_ns) = (2_000_000, 2_000_000);
    });
    let over = lab.window(true);
    assert_eq!(
        (int_of(&over, "wakes"), int_of(&over, "pickups")),
        (Some(0), Some(1))
    );
    assert_eq!(int_of(&over, "pending_ns"), Some(0));
    assert_eq!(int_of(&over, "pickup_max_ns"), Some(2_000_000));
}

#[test]
fn a_kick_that_found_the_backend_on_a_cpu_is_not_pending() {
    let mut lab = Lab::new();
    lab.fake.stats(2, |s| {
        s.woken = 8 | wake::KICK | wake::RACING;
        s.kicks_running = 3;
    });
    let rows = lab.window(true);
    assert_eq!(int_of(&rows, "pending_ns"), Some(0));
    assert_eq!(int_of(&rows, "wakes"), Some(3));
}

#[test]
fn without_kvms_tracepoints_kicks_are_unavailable_not_zero() {
    let mut lab = Lab::new();
    lab.fake.with(|c| c.without_kvm = Some("kvm is not loaded"));
    lab.fake.stats(2, |s| {
        counted(&mut s.pickup, 20_000, 1);
        s.pickup_max_ns = 20_000;
    });
    let rows = lab.window(true);
    for column in ["kicks", "polled", "injects", "inject_wakes", "inject_ns"] {
        assert_eq!(int_of(&rows, column), None, "{column}");
    }
    assert_eq!(int_of(&rows, "pickups"), Some(1));
    assert_eq!(texts(&rows, "source"), ["tp_btf"]);
    let status = lab.family.status().remove(0);
    assert!(status.reason.unwrap().ends_with("kvm is not loaded"));
    let none = Virtio::new(Err("no capability".into()), "/proc".into());
    let status = none.status().remove(0);
    assert_eq!(
        (status.source, status.reason.as_deref()),
        (None, Some("no capability"))
    );
}

#[test]
fn a_guest_without_kvm_has_pickups_and_no_zeros() {
    let mut lab = Lab::of(0);
    lab.fake.stats(2, |s| {
        counted(&mut s.pickup, 20_000, 1);
        s.pickup_max_ns = 20_000;
    });
    let rows = lab.window(true);
    assert_eq!(
        (int_of(&rows, "kicks"), int_of(&rows, "injects")),
        (None, None)
    );
    assert_eq!(int_of(&rows, "pickups"), Some(1));
    assert_eq!(texts(&rows, "source"), ["tp_btf"]);
}

#[test]
fn counts_wrap_and_slots_change_without_a_jump() {
    let mut lab = Lab::new();
    lab.fake.stats(2, |s| {
        counted(&mut s.pickup, 20_000, u32::MAX);
        s.pickup_max_ns = 20_000;
    });
    lab.window(true);
    lab.fake.stats(2, |s| counted(&mut s.pickup, 20_000, 3));
    assert_eq!(int_of(&lab.window(true), "pickups"), Some(3));
    // Registered anew: counts from 0 in slot 9.
    lab.fake.with(|c| c.slots.insert(IO, 9));
    lab.fake.stats(9, |s| {
        counted(&mut s.pickup, 20_000, 2);
        s.pickup_max_ns = 20_000;
    });
    assert_eq!(int_of(&lab.window(true), "pickups"), Some(2));
}

#[test]
fn a_vm_that_ends_has_a_last_row_and_leaves_no_doorbell() {
    let mut lab = Lab::new();
    lab.fake.stats(1, |s| {
        counted(&mut s.pickup, 20_000, 1);
        s.pickup_max_ns = 20_000;
    });
    lab.fake.with(|c| c.bells = vec![bell(1, 1, 0, 1)]);
    assert_eq!(texts(&lab.window(true), "backend"), ["main loop", "io1"]);
    lab.tick();
    let last = lab.window(false);
    assert_eq!(last.rows(), 2);
    assert!(lab.fake.with(|c| c.bells.is_empty()));
    assert!(lab.family.backends.is_empty());
    assert!(lab.proc.path().exists());
}

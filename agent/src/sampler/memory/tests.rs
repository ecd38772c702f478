use std::fs;
use std::sync::Arc;

use super::*;
use crate::discover::fake::FakeProc;
use crate::discover::{Vm, cmdline};
use crate::sampler::observe::SceneVm;

/// A host and one VM in its own group of version 2.
struct Lab {
    proc: FakeProc,
    vm: Vm,
}

impl Lab {
    fn new() -> Self {
        let proc = FakeProc::new();
        proc.process(
            100,
            "qemu-system-x86",
            5,
            "qemu-system-x86_64 -name guest=web",
        );
        proc.write("100/cgroup", "0::/vms/web\n");
        let point = proc.path().join("cg");
        proc.write(
            "self/mountinfo",
            &format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", point.display()),
        );
        let key = VmKey {
            boot: "b".into(),
            pid: 100,
            start_ticks: 5,
            uuid: None,
        };
        let args = ["qemu-system-x86_64", "-m", "1024", "-name", "guest=web"].map(str::to_owned);
        let vmm = cmdline::vmm(&args[0]).unwrap();
        let info = Arc::new(cmdline::parse(vmm, &args, 100));
        let lab = Self {
            proc,
            vm: Vm {
                key,
                info,
                id: "web@b.5".into(),
                threads: Vec::new(),
            },
        };
        lab.proc.write("cg/vms/web/memory.current", "1\n");
        lab.proc.write("cg/vms/web/memory.stat", "");
        lab.proc.write("cg/vms/web/cgroup.procs", "100\n");
        lab.group(0, 0);
        lab.status(1000, 0);
        lab.host(0, 0, 0);
        lab
    }

    fn group(&self, max: u32, kills: u32) {
        let text = format!("low 0\nhigh 0\nmax {max}\noom 0\noom_kill {kills}\n");
        self.proc.write("cg/vms/web/memory.events", &text);
    }

    fn status(&self, rss: u32, swap: u32) {
        self.proc.write(
            "100/status",
            &format!("Name:\tqemu\nVmRSS:\t{rss} kB\nVmSwap:\t{swap} kB\n"),
        );
    }

    fn host(&self, swapped: u32, stalls: u32, kills: u32) {
        let text = format!(
            "pswpout {swapped}\nallocstall_normal 0\ncompact_stall {stalls}\noom_kill {kills}\n"
        );
        self.proc.write("vmstat", &text);
    }

    fn observer(&self) -> MemoryObserver {
        MemoryObserver::new("h".into(), self.proc.path(), "/nowhere".as_ref(), None)
    }

    fn scene(&self, live: bool) -> Scene<'_> {
        Scene {
            vms: vec![SceneVm {
                vm: &self.vm,
                index: Some(1),
                live,
            }],
        }
    }

    /// One tick; what happened, in order of time.
    fn tick(&self, observer: &mut MemoryObserver, live: bool) -> Vec<(String, &'static str)> {
        observer.tick(&self.scene(live));
        let mut events = observer.take_events();
        events.sort_by_key(|e| e.ts_us);
        events.into_iter().map(|e| (e.subject, e.kind)).collect()
    }
}

fn vm(kind: &'static str) -> (String, &'static str) {
    ("vm/web@b.5".into(), kind)
}

fn host(kind: &'static str) -> (String, &'static str) {
    ("host/h".into(), kind)
}

#[test]
fn the_ladder_is_climbed_in_order_and_once() {
    let lab = Lab::new();
    let mut observer = lab.observer();
    assert_eq!(lab.tick(&mut observer, true), []);
    lab.group(3, 0);
    assert_eq!(lab.tick(&mut observer, true), [vm("memory_reclaim")]);
    lab.group(9, 0);
    lab.status(500, 500);
    lab.host(125, 0, 0);
    let events = lab.tick(&mut observer, true);
    assert_eq!(events, [vm("memory_swap"), host("memory_swap")]);
    lab.status(400, 600);
    lab.host(150, 2, 0);
    assert_eq!(
        lab.tick(&mut observer, true),
        [host("memory_compaction_stall")]
    );
    lab.group(20, 1);
    lab.host(150, 2, 1);
    // The kill is the VM's: the host has no other.
    assert_eq!(lab.tick(&mut observer, false), [vm("memory_oom_kill")]);
    lab.host(150, 2, 3);
    assert_eq!(lab.tick(&mut observer, false), [host("memory_oom_kill")]);
}

#[test]
fn steps_of_one_tick_are_in_the_kernels_order() {
    let lab = Lab::new();
    let mut observer = lab.observer();
    lab.tick(&mut observer, true);
    lab.group(3, 1);
    lab.status(500, 500);
    lab.host(125, 0, 1);
    let events = lab.tick(&mut observer, true);
    let of_vm: Vec<_> = events.iter().filter(|e| e.0 != "host/h").cloned().collect();
    assert_eq!(
        of_vm,
        [
            vm("memory_reclaim"),
            vm("memory_swap"),
            vm("memory_oom_kill")
        ]
    );
}

#[test]
fn a_window_has_a_row_of_each() {
    let lab = Lab::new();
    let mut observer = lab.observer();
    let frame = Frame { ts: 7, host: "h" };
    lab.tick(&mut observer, true);
    lab.group(4, 0);
    let chunks = observer.window(&frame, &lab.scene(true));
    assert_eq!(chunks.iter().map(Chunk::rows).collect::<Vec<_>>(), [1, 1]);
    let cell = |name: &str| {
        let column = &chunks[1].columns[chunks[1].table.position(name).unwrap()];
        match column {
            headroom_core::batch::ColumnData::Int(v) => v[0],
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (
            cell("given_bytes"),
            cell("resident_bytes"),
            cell("limit_hits")
        ),
        (Some(1 << 30), Some(1_024_000), Some(4))
    );
    assert_eq!((cell("balloon_bytes"), cell("scanned")), (None, None));
    // Its cgroup goes with it: no row of nothing.
    fs::remove_dir_all(lab.proc.path().join("cg/vms/web")).unwrap();
    assert_eq!(observer.window(&frame, &lab.scene(false))[1].rows(), 0);
    assert!(observer.vms.is_empty());
}

#[test]
fn a_vm_that_is_moved_to_its_group_starts_anew() {
    let lab = Lab::new();
    lab.proc.write("100/cgroup", "0::/\n");
    let mut observer = lab.observer();
    assert_eq!(lab.tick(&mut observer, true), []);
    lab.group(1_000, 5);
    lab.proc.write("100/cgroup", "0::/vms/web\n");
    assert_eq!(
        lab.tick(&mut observer, true),
        [],
        "what was before is not its"
    );
    lab.group(1_001, 5);
    assert_eq!(lab.tick(&mut observer, true), [vm("memory_reclaim")]);
}

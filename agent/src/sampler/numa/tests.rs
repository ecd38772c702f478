use std::sync::Arc;

use headroom_core::batch::ColumnData;

use super::*;
use crate::discover::cmdline::{self, Vmm};
use crate::discover::fake::FakeProc;
use crate::discover::{Role, ThreadKey, Vm, VmThread};

const FRAME: Frame<'static> = Frame { ts: 1, host: "h" };
const MIB: u64 = 1 << 20;

/// A VM with two vCPUs in a host of two nodes with two CPUs each.
struct Bench {
    proc: FakeProc,
    vm: Vm,
    numa: Numa,
}

impl Bench {
    fn new(nodes: u32) -> Self {
        let proc = FakeProc::new();
        proc.write("node/online", &format!("0-{}\n", nodes - 1));
        for node in 0..nodes {
            let cpus = format!("{}-{}\n", node * 2, node * 2 + 1);
            proc.write(&format!("node/node{node}/cpulist"), &cpus);
        }
        proc.write("50/status", "RssAnon:\t  400 kB\nRssShmem:\t 0 kB\n");
        let topology = Topology::of(proc.path().join("node"));
        let thread = |n| VmThread {
            key: ThreadKey {
                tid: 51 + n,
                start_ticks: 9,
            },
            pid: 50,
            role: Role::Vcpu(n),
        };
        let vm = Vm {
            key: VmKey {
                boot: "b".into(),
                pid: 50,
                start_ticks: 9,
                uuid: None,
            },
            info: Arc::new(cmdline::parse(Vmm::Qemu, &[], 50)),
            id: "a".to_owned(),
            threads: vec![thread(0), thread(1)],
        };
        let mut numa = Numa::new(proc.path().into());
        let mut keys = topology.nodes.keys().copied();
        let only = keys.next().filter(|_| keys.next().is_none());
        numa.reader = MemoryReader::new(proc.path().into(), only);
        numa.host = HostNuma::new(&topology);
        numa.topology = topology;
        Self { proc, vm, numa }
    }

    /// A look at vCPUs that ran so many ticks in all, on these CPUs.
    fn tick(&mut self, vcpus: [(u64, u32); 2]) {
        for (n, (ticks, cpu)) in vcpus.into_iter().enumerate() {
            let tid = 51 + n;
            let rest = "0 ".repeat(16);
            self.proc.write(
                &format!("50/task/{tid}/stat"),
                &format!("{tid} (CPU {n}/KVM) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 4 0 9 {rest}{cpu} 0"),
            );
        }
        let vm = self.vm.clone();
        self.numa.tick(&scene(&vm));
    }

    fn window(&mut self) -> (Chunk, Chunk) {
        let vm = self.vm.clone();
        let mut chunks = self.numa.window(&FRAME, &scene(&vm)).into_iter();
        (chunks.next().unwrap(), chunks.next().unwrap())
    }
}

fn scene(vm: &Vm) -> Scene<'_> {
    Scene {
        vms: vec![SceneVm {
            vm,
            index: None,
            live: true,
        }],
    }
}

fn ints(chunk: &Chunk, column: &str) -> Vec<Option<i64>> {
    match &chunk.columns[chunk.table.position(column).unwrap()] {
        ColumnData::Int(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

fn share(chunk: &Chunk, column: &str) -> Vec<Option<f64>> {
    match &chunk.columns[chunk.table.position(column).unwrap()] {
        ColumnData::Float(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

fn maps(n0: u64, n1: u64) -> String {
    format!("7f00 default anon=1 N0={n0} N1={n1} kernelpagesize_kB=4\n")
}

#[test]
fn memory_far_from_all_vcpus_is_remote() {
    let mut bench = Bench::new(2);
    bench.proc.write("50/numa_maps", &maps(5 * 256, 95 * 256));
    bench.tick([(0, 0), (0, 1)]);
    bench.tick([(90, 0), (40, 1)]);
    let (vm, nodes) = bench.window();
    assert_eq!(ints(&vm, "memory_bytes"), [Some(int(100 * MIB))]);
    assert_eq!(ints(&vm, "remote_bytes"), [Some(int(95 * MIB))]);
    assert_eq!(ints(&vm, "elsewhere_bytes"), [Some(int(95 * MIB))]);
    assert_eq!(share(&vm, "remote_share"), [Some(0.95)]);
    assert_eq!(ints(&vm, "vcpu_time_ns"), [Some(1_300_000_000)]);
    assert_eq!(ints(&nodes, "bytes"), [5, 95].map(|m| Some(int(m * MIB))));
    assert_eq!(share(&nodes, "vcpu_share"), [Some(1.0), Some(0.0)]);
}

#[test]
fn vcpus_on_both_nodes_weigh_by_their_time() {
    let mut bench = Bench::new(2);
    bench.proc.write("50/numa_maps", &maps(256, 3 * 256));
    bench.tick([(0, 0), (0, 2)]);
    bench.tick([(30, 0), (10, 2)]);
    let (vm, _) = bench.window();
    // 1 MiB · 1/4 + 3 MiB · 3/4.
    assert_eq!(share(&vm, "remote_share"), [Some(0.625)]);
    assert_eq!(ints(&vm, "elsewhere_bytes"), [Some(0)]);
    assert_eq!(ints(&vm, "vcpu_nodes"), [Some(2)]);
}

#[test]
fn page_tables_are_walked_once_a_minute() {
    let mut bench = Bench::new(2);
    bench.proc.write("50/numa_maps", &maps(256, 0));
    bench.tick([(0, 0), (0, 0)]);
    bench.window();
    bench.proc.write("50/numa_maps", &maps(0, 256));
    bench.tick([(5, 0), (5, 0)]);
    let (vm, _) = bench.window();
    assert_eq!(share(&vm, "remote_share"), [Some(0.0)]);
    assert!(ints(&vm, "age_ns")[0].unwrap() > 0);
}

#[test]
fn one_node_is_unavailable_not_nought() {
    let mut bench = Bench::new(1);
    bench.tick([(0, 0), (0, 1)]);
    bench.tick([(9, 0), (9, 1)]);
    let (vm, nodes) = bench.window();
    assert_eq!(ints(&vm, "memory_bytes"), [Some(400 * 1024)]);
    assert_eq!(ints(&vm, "remote_bytes"), [None]);
    assert_eq!(share(&vm, "remote_share"), [None]);
    assert_eq!(ints(&nodes, "node"), [Some(0)]);
    assert_eq!(ints(&nodes, "bytes"), [Some(400 * 1024)]);
    assert_eq!(share(&nodes, "vcpu_share"), [None]);
    assert_eq!(bench.numa.status()[0].reason.as_deref(), Some(ONE_NODE));
}

#[test]
fn what_cannot_be_read_says_why() {
    let mut bench = Bench::new(2);
    bench.tick([(0, 0), (0, 1)]);
    let (vm, nodes) = bench.window();
    assert_eq!(ints(&vm, "memory_bytes"), [None]);
    assert_eq!(ints(&nodes, "bytes"), [None, None]);
    assert!(bench.numa.status()[0].reason.is_some());
    assert!(bench.numa.status()[0].source.is_none());
}

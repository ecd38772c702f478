use std::sync::{Arc as Shared, Mutex};

use headroom_abi::block::{DiskKey, DiskStats, OpenRequest, op};
use headroom_core::batch::ColumnData;

use super::*;
use crate::discover::{Vm, VmInfo, VmKey};
use crate::probe::ProbeError;
use crate::sampler::SceneVm;

/// Probes that say what a test tells them to.
#[derive(Clone, Default)]
struct Fake(Shared<Mutex<State>>);

#[derive(Default)]
struct State {
    reading: BlockReading,
    forgotten: Vec<u16>,
}

impl BlockSource for Fake {
    fn name(&self) -> &'static str {
        "tp_btf"
    }

    fn read(&self) -> Result<BlockReading, ProbeError> {
        Ok(self.0.lock().unwrap().reading.clone())
    }

    fn set_cgroup(&mut self, _: u64, _: Option<u16>) -> Result<(), ProbeError> {
        Ok(())
    }

    fn forget(&mut self, vm: u16) -> Result<(), ProbeError> {
        let mut state = self.0.lock().unwrap();
        state.forgotten.push(vm);
        state.reading.stats.retain(|key, _| key.vm != u32::from(vm));
        Ok(())
    }
}

impl Fake {
    /// `n` reads of 4 KiB by a VM, each 100 ns in the queue and 20 ms served.
    fn reads(&self, vm: u32, n: u64) {
        let mut state = self.0.lock().unwrap();
        let key = DiskKey {
            vm,
            device: 7 << 20 | 77,
            op: op::READ,
        };
        let stats = state.reading.stats.entry(key).or_insert(DiskStats::ZERO);
        stats.requests += n;
        stats.bytes += n * 4096;
        stats.queue_ns += n * 100;
        stats.service_ns += n * 20_000_000;
        stats.queue_hist[headroom_abi::hist::index(100)] += n;
        stats.service_hist[headroom_abi::hist::index(20_000_000)] += n;
        state.reading.at_ns += 1_000_000_000;
        state.reading.open = Some(Vec::new());
    }

    fn open(&self, request: OpenRequest) {
        let mut state = self.0.lock().unwrap();
        state.reading.open.get_or_insert_default().push(request);
    }
}

fn vm(name: &str) -> Vm {
    let info = VmInfo {
        name: name.to_owned(),
        uuid: None,
        memory_bytes: None,
        vcpus: None,
        machine: None,
        platform: "qemu",
    };
    Vm {
        key: VmKey {
            boot: "boot".into(),
            pid: u32::MAX,
            start_ticks: 1,
            uuid: None,
        },
        info: info.into(),
        id: format!("{name}@1"),
        threads: Vec::new(),
    }
}

fn scene(vms: &[(Vm, u16)]) -> Scene<'_> {
    let vms = vms.iter().map(|(vm, number)| SceneVm {
        vm,
        index: Some(*number),
        live: true,
    });
    Scene { vms: vms.collect() }
}

fn observer(fake: &Fake) -> BlockObserver {
    BlockObserver::new(Ok(Box::new(fake.clone())), "/nonexistent".into())
}

/// `vm_name` and `requests` of the rows of a window.
fn requests(observer: &mut BlockObserver, scene: &Scene<'_>) -> Vec<(String, i64)> {
    let frame = Frame { ts: 1, host: "h" };
    let chunks = observer.window(&frame, scene);
    let rows = chunks.iter().find(|c| c.table.name == "vm_disks").unwrap();
    let column = |name: &str| &rows.columns[rows.table.position(name).unwrap()];
    match (column("vm_name"), column("requests")) {
        (ColumnData::Text(names), ColumnData::Int(n)) => names
            .iter()
            .flatten()
            .cloned()
            .zip(n.iter().flatten().copied())
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_vm_has_its_own_rows_and_the_rest_is_the_hosts() {
    let fake = Fake::default();
    let vms = [(vm("a"), 1), (vm("b"), 2)];
    let mut observer = observer(&fake);
    observer.tick(&scene(&vms));
    fake.reads(1, 3);
    fake.reads(0, 5);
    let rows = requests(&mut observer, &scene(&vms));
    assert_eq!(rows, [("host".to_owned(), 5), ("a".to_owned(), 3)]);
    fake.reads(2, 7);
    let rows = requests(&mut observer, &scene(&vms));
    assert_eq!(rows, [("b".to_owned(), 7)]);
}

#[test]
fn a_number_given_to_another_vm_starts_at_nothing() {
    let fake = Fake::default();
    let mut observer = observer(&fake);
    let first = [(vm("a"), 1)];
    observer.tick(&scene(&first));
    fake.reads(1, 3);
    assert_eq!(requests(&mut observer, &scene(&first)).len(), 1);
    let second = [(vm("b"), 1)];
    observer.tick(&scene(&second));
    assert_eq!(fake.0.lock().unwrap().forgotten, [1, 1]);
    fake.reads(1, 2);
    let rows = requests(&mut observer, &scene(&second));
    assert_eq!(rows, [("b".to_owned(), 2)]);
}

#[test]
fn figures_of_a_row() {
    let fake = Fake::default();
    fake.reads(0, 0);
    let base = fake.read().unwrap();
    fake.reads(0, 10);
    let now = fake.read().unwrap();
    let deltas = Deltas::between(&base, &now, |_| None);
    let row = figures(deltas.by_disk.values().next().unwrap(), 1_000_000_000);
    assert_eq!((row.requests, row.bytes), (10, 40_960));
    assert_eq!(row.await_ns, Some(20_000_100.0));
    assert_eq!(row.in_flight, Some(0.2));
    assert_eq!((row.in_flight_now, row.oldest_ns), (Some(0), None));
}

#[test]
fn a_stuck_request_has_a_row_without_any_completion() {
    let fake = Fake::default();
    fake.reads(1, 0);
    let vms = [(vm("a"), 1)];
    let mut observer = observer(&fake);
    observer.tick(&scene(&vms));
    fake.open(OpenRequest {
        start_ns: 1,
        issue_ns: 2,
        key: DiskKey {
            vm: 1,
            device: 1,
            op: op::WRITE,
        },
        bytes: 1,
    });
    let rows = requests(&mut observer, &scene(&vms));
    assert_eq!(rows, [("a".to_owned(), 0)]);
}

#[test]
fn without_probes_the_hosts_disks_stay() {
    let mut observer = BlockObserver::new(Err("no BTF".to_owned()), "/proc".into());
    let status = observer.status();
    assert_eq!(status[0].source, None);
    assert_eq!(status[0].reason.as_deref(), Some("no BTF"));
    let chunks = observer.window(&Frame { ts: 1, host: "h" }, &Scene::default());
    let tables: Vec<_> = chunks.iter().map(|c| c.table.name).collect();
    assert_eq!(tables, ["host_disks", "vm_io"]);
}

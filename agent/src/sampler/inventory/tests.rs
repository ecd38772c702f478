use std::fs;

use headroom_core::batch::ColumnData;

use super::super::repeat::REPEAT_US;
use super::super::{Sampler, SceneVm};
use super::*;
use crate::discover::fake::FakeProc;
use crate::discover::{Discovery, Vm};

const UUID: &str = "c7a5fdbd-edaf-9455-926a-d65c16db1809";

struct Lab {
    proc: FakeProc,
    discovery: Discovery,
    family: InventoryFamily,
    book: Book,
    ts: i64,
}

impl Lab {
    /// One VM of two vCPUs, in process 50.
    fn new() -> Self {
        let proc = FakeProc::new();
        let cmdline = format!(
            "qemu-system-x86_64 -name guest=instance-0000001a -m 512 -machine q35 -uuid {UUID}"
        );
        proc.process(50, "qemu-system-x86", 100, &cmdline);
        for n in 0..2 {
            proc.thread(50, 51 + n, &format!("CPU {n}/KVM"), 100);
        }
        proc.write("50/cgroup", "0::/qemu.slice/104.scope\n");
        let book = Book::default();
        let places = Places {
            proc: proc.path().into(),
            libvirt: proc.path().join("libvirt"),
        };
        let labels = proc.path().join("labels.toml");
        proc.write("labels.toml", "[defaults]\nregion = \"eu\"\n");
        let mut lab = Self {
            discovery: Discovery::new(proc.path().into(), proc.path().join("kvm")),
            family: InventoryFamily::new(places, Some(labels), book.clone()),
            proc,
            book,
            ts: 1,
        };
        lab.pin(0, "0-3");
        lab.pin(1, "0-3");
        lab
    }

    fn pin(&mut self, vcpu: u32, cpus: &str) {
        let path = format!("50/task/{}/status", 51 + vcpu);
        let text = format!("Cpus_allowed_list:\t{cpus}\nMems_allowed_list:\t0\n");
        self.proc.write(&path, &text);
    }

    fn label(&self, text: &str) {
        let to = self.proc.path().join("labels.toml");
        // Kept, so that the new file has another inode.
        fs::rename(&to, self.proc.path().join("labels.old")).unwrap();
        fs::write(to, text).unwrap();
    }

    /// A tick, then a window: its rows, one map of columns each.
    fn window(&mut self) -> Vec<Vec<(&'static str, String)>> {
        let vms = self.discovery.scan();
        let chunk = self.window_of(&vms, true);
        rows(&chunk)
    }

    fn window_of(&mut self, vms: &[Vm], live: bool) -> Chunk {
        let vms = vms.iter().map(|vm| SceneVm {
            vm,
            index: None,
            live,
        });
        let scene = Scene { vms: vms.collect() };
        self.family.tick(&scene);
        self.ts += 10_000_000;
        let frame = Frame {
            ts: self.ts,
            host: "h1",
        };
        self.family.window(&frame, &scene).remove(0)
    }
}

/// Values as text; what is unavailable is left out.
fn rows(chunk: &Chunk) -> Vec<Vec<(&'static str, String)>> {
    let value = |column: &ColumnData, row: usize| match column {
        ColumnData::Int(v) => v[row].map(|v| v.to_string()),
        ColumnData::Text(v) => v[row].clone(),
        _ => None,
    };
    let columns = || chunk.table.columns.iter().zip(&chunk.columns);
    let row = |row| columns().filter_map(move |(c, data)| Some((c.name, value(data, row)?)));
    (0..chunk.rows()).map(|n| row(n).collect()).collect()
}

fn of<'a>(row: &'a [(&'static str, String)], column: &str) -> Option<&'a str> {
    let found = row.iter().find(|(name, _)| *name == column);
    found.map(|(_, value)| value.as_str())
}

#[test]
fn told_when_first_seen_on_change_and_every_ten_minutes() {
    let mut lab = Lab::new();
    let first = lab.window().remove(0);
    for (column, value) in [
        ("vm_id", Some(UUID)),
        ("platform", Some("openstack")),
        ("vcpus", Some("2")),
        ("memory_bytes", Some("536870912")),
        ("cgroup", Some("/qemu.slice/104.scope")),
        ("pinning", Some("0-1: 0-3")),
        ("numa_nodes_allowed", Some("0")),
        ("region", Some("eu")),
        ("tenant", None),
        ("vm_type", Some("q35")),
        ("labels", Some(r#"{"proxmox_vmid":"104"}"#)),
    ] {
        assert_eq!(of(&first, column), value, "{column}");
    }
    assert!(lab.window().is_empty());
    lab.pin(1, "2");
    let second = lab.window().remove(0);
    assert_eq!(of(&second, "pinning"), Some("0: 0-3; 1: 2"));
    assert!(lab.window().is_empty());
    lab.ts += REPEAT_US;
    assert_eq!(of(&lab.window()[0], "pinning"), Some("0: 0-3; 1: 2"));
}

#[test]
fn labels_follow_their_file_and_the_last_good_ones_stay() {
    let mut lab = Lab::new();
    lab.window();
    lab.label("[[vm]]\nglob = \"instance-*\"\ntenant = \"acme\"\nvm_type = \"big\"\n");
    let row = lab.window().remove(0);
    assert_eq!(
        (of(&row, "tenant"), of(&row, "region"), of(&row, "vm_type")),
        (Some("acme"), None, Some("big"))
    );
    assert!(lab.book.take_problems().is_empty());
    lab.label("[[vm]]\nglob = \"instance-*\"\ntenant = acme\n");
    assert!(lab.window().is_empty());
    assert!(lab.window().is_empty());
    let problems = lab.book.take_problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("labels.toml: line 3: "),
        "{problems:?}"
    );
    assert_eq!(lab.family.status()[0].reason, Some(problems[0].clone()));
}

#[test]
fn state_file_of_the_same_process_alone() {
    let mut lab = Lab::new();
    lab.window();
    let write = |lab: &Lab, pid: u32, project: &str| {
        let xml = format!(
            "<domstatus pid='{pid}'><domain><uuid>{UUID}</uuid><metadata>\
             <n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'>\
             <n:flavor name='m1.large'/><n:owner><n:project uuid='1'>{project}</n:project></n:owner>\
             </n:instance></metadata></domain></domstatus>"
        );
        lab.proc.write("libvirt/instance-0000001a.xml", &xml);
    };
    // Left behind by the process before.
    write(&lab, 49, "wrong");
    assert!(lab.window().is_empty());
    write(&lab, 50, "acmecorp");
    let row = lab.window().remove(0);
    assert_eq!(
        (of(&row, "tenant"), of(&row, "project"), of(&row, "vm_type")),
        (Some("acmecorp"), Some("acmecorp"), Some("m1.large"))
    );
}

#[test]
fn files_of_another_process_with_the_number_do_not_count() {
    let mut lab = Lab::new();
    lab.window();
    let vms = lab.discovery.scan();
    // The scan is over; now another process has the number.
    lab.proc
        .process(50, "qemu-system-x86", 900, "qemu-system-x86_64 -name b");
    lab.proc.write("50/cgroup", "0::/qemu.slice/999.scope\n");
    assert_eq!(lab.window_of(&vms, true).rows(), 0);
}

#[test]
fn a_vm_of_one_window_is_told_once_and_forgotten() {
    let mut lab = Lab::new();
    let vms = lab.discovery.scan();
    assert_eq!(lab.window_of(&vms, false).rows(), 1);
    assert!(lab.family.known.is_empty());
    lab.window();
    assert_eq!(lab.window_of(&vms, false).rows(), 0);
}

/// Row A16: the rows of the VM itself carry the labels, too.
#[test]
fn rows_of_vms_are_labelled() {
    let mut lab = Lab::new();
    lab.label("[[vm]]\nglob = \"*\"\ntenant = \"acme\"\nproject = \"shop\"\n");
    lab.window();
    let key = lab.discovery.scan().remove(0).key;
    let mut row = headroom_core::rows::VmRow {
        vm_type: Some("q35".into()),
        ..Default::default()
    };
    lab.book.fill(&key, &mut row);
    let texts = (row.tenant.as_deref(), row.project.as_deref());
    assert_eq!(texts, (Some("acme"), Some("shop")));
    // No label tells the type: the machine stays.
    assert_eq!(row.vm_type.as_deref(), Some("q35"));
}

/// The real sampler has both families.
#[test]
fn the_sampler_tells_this_host() {
    let proc = FakeProc::new();
    proc.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=a",
    );
    proc.thread(50, 51, "CPU 0/KVM", 100);
    proc.write("labels.toml", "[defaults]\ntenant = \"acme\"\n");
    let options = super::super::SamplerOptions {
        attach: crate::probe::AttachPolicy::Off,
        proc: proc.path().into(),
        kvm_debug: proc.path().join("kvm"),
        libvirt: proc.path().join("libvirt"),
        labels: Some(proc.path().join("labels.toml")),
        ..super::super::SamplerOptions::new("h1".into())
    };
    let mut sampler = Sampler::new(options);
    sampler.tick();
    proc.write("labels.toml", "tenant =\n");
    sampler.tick();
    let window = sampler.window(1);
    let table = |name: &str| {
        let mut chunks = window.more.iter();
        chunks.find(|c| c.table.name == name).unwrap().rows()
    };
    assert!(table("topology") > 0 && table("topology_nodes") > 0);
    assert_eq!(table("inventory"), 1);
    let broken: Vec<_> = window
        .events
        .iter()
        .filter(|e| e.kind == "labels_broken")
        .collect();
    assert_eq!(broken.len(), 1);
    assert!(broken[0].detail.contains("line 1: "), "{broken:?}");
}

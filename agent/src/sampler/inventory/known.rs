//! What is known of one VM.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use headroom_core::rows::InventoryRow;

use super::Places;
use crate::discover::{self, Role, Vm, cmdline};
use crate::files;
use crate::inventory::cgroup::{self, Group};
use crate::inventory::libvirt::{self, Domain};
use crate::inventory::{Labels, Rules, of_command_line, status};
use crate::sampler::rows::{Frame, count, int};

/// A domain's state file beyond that is none: 100 disks take 200 KiB.
const MAX_XML_BYTES: u64 = 4 << 20;

/// A VM as far as its files tell.
#[derive(Debug, Default)]
pub struct Known {
    /// The row that was told last.
    pub told: Option<InventoryRow>,
    /// End of the last window in which its files were read.
    pub read: Option<i64>,
    /// By the command line; `None` until it was read.
    arguments: Option<Labels>,
    domain: Domain,
    /// Which state of the file that is: when it was written, ns, and its
    /// inode.
    domain_mark: Option<(i64, i64, u64)>,
    group: Group,
    pinning: Option<String>,
    nodes: Option<String>,
    labels: Labels,
}

impl Known {
    /// Reads the VM's files again. What they say counts only if the process
    /// is still the same afterwards: else another may have its number.
    pub fn refresh(&mut self, places: &Places, vm: &Vm) {
        let pid = vm.key.pid;
        let dir = places.proc.join(pid.to_string());
        let read = |file: &str| files::text(dir.join(file));
        let arguments = match &self.arguments {
            Some(labels) => Some(labels.clone()),
            None => std::fs::read(dir.join("cmdline"))
                .ok()
                .map(|bytes| of_command_line(&vm.info, &cmdline::split(&bytes))),
        };
        let group = read("cgroup").map(|text| cgroup::parse(&text));
        let mut vcpus = Vec::new();
        let mut nodes = None;
        for thread in &vm.threads {
            if let Role::Vcpu(number) = thread.role
                && let Some(text) = read(&format!("task/{}/status", thread.key.tid))
            {
                let (cpus, mems) = status::allowed(&text);
                vcpus.extend(cpus.map(|cpus| (number, cpus)));
                nodes = nodes.or(mems);
            }
        }
        if !discover::is_still(&places.proc, &vm.key) {
            return;
        }
        self.arguments = arguments;
        self.group = group.unwrap_or_default();
        self.pinning = status::pinning(&vcpus);
        self.nodes = nodes;
        self.read_domain(&places.libvirt, vm);
    }

    /// Joins what the sources say, in their order.
    pub fn label(&mut self, rules: Option<&Rules>, vm: &Vm) {
        let (uuid, name) = (vm.key.uuid.as_deref(), vm.info.name.as_str());
        let written = rules.map(|r| r.of(uuid, name)).unwrap_or_default();
        let defaults = rules.map(Rules::defaults).unwrap_or_default();
        self.labels = written
            .or(self.arguments.clone().unwrap_or_default())
            .or(self.group.labels.clone())
            .or(self.domain.labels.clone())
            .or(defaults);
    }

    /// What [`Self::label`] found.
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The VM's row.
    pub fn row(&self, frame: &Frame<'_>, vm: &Vm) -> InventoryRow {
        let (info, labels) = (&vm.info, self.labels.clone());
        let vcpu = |role| matches!(role, Role::Vcpu(_));
        // The command line knows best; where it says nothing the group's
        // maker is the platform.
        let platform = match (info.platform, self.group.platform) {
            ("qemu", Some(maker)) => maker,
            (platform, _) => platform,
        };
        InventoryRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            vm_id: vm.id.clone(),
            vm_name: info.name.clone(),
            platform: platform.to_owned(),
            uuid: vm.key.uuid.clone(),
            pid: vm.key.pid.into(),
            vcpus: count(vm.threads.iter().filter(|t| vcpu(t.role)).count()),
            memory_bytes: info.memory_bytes.map(int),
            machine: info.machine.clone(),
            cgroup: self.group.path.clone(),
            pinning: self.pinning.clone(),
            numa_nodes_allowed: self.nodes.clone(),
            labels: labels.more_json(),
            qos_class: labels.qos_class,
            tenant: labels.tenant,
            project: labels.project,
            vm_type: labels.vm_type.or_else(|| info.machine.clone()),
            region: labels.region,
            priority: labels.priority,
        }
    }

    /// libvirt writes the file while the VM starts and again at each change
    /// of its state.
    fn read_domain(&mut self, dir: &Path, vm: &Vm) {
        let name = &vm.info.name;
        // libvirt refuses such names; others must not lead out of the directory.
        if name.contains('/') {
            return;
        }
        let path = dir.join(format!("{name}.xml"));
        let Ok(metadata) = std::fs::metadata(&path) else {
            return;
        };
        let mark = (metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
        if self.domain_mark == Some(mark) || metadata.len() > MAX_XML_BYTES {
            return;
        }
        let domain = files::text(&path).and_then(|xml| libvirt::parse(&xml));
        let Some(domain) = domain else {
            return;
        };
        // A file that was left behind, or another VM of the same name.
        let other_pid = domain.pid.is_some_and(|pid| pid != vm.key.pid);
        let other_uuid = domain.uuid.is_some() && domain.uuid != vm.key.uuid;
        if !other_pid && !other_uuid {
            (self.domain, self.domain_mark) = (domain, Some(mark));
        }
    }
}

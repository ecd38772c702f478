//! Where the memory of each VM lies and where its vCPUs run.
//!
//! Memory by node comes from the VM's own cgroup, without a walk of page
//! tables; where there is none of its own, from `numa_maps`, which walks them
//! all and is read once a minute at most. vCPUs are looked at once a second:
//! the CPU time since the last look is charged to the node of the CPU where
//! the vCPU ran last. On a host with one node none of that is read.

mod cgroup;
mod charge;
mod host;
mod maps;
mod memory;
mod topology;

use std::collections::BTreeMap;
use std::path::PathBuf;

use headroom_core::batch::Chunk;
use headroom_core::rows::{VmNumaNodeRow, VmNumaRow};

use super::observe::{FamilyStatus, Observer, Scene, SceneVm};
use super::rows::{Frame, count, int};
use crate::clock::monotonic_ns;
use crate::discover::VmKey;
use charge::{Charges, VcpuCharges};
use host::HostNuma;
use memory::{Memory, MemoryReader};
use topology::Topology;

const ONE_NODE: &str = "host with one NUMA node: nothing is remote";

/// Bytes by node.
pub type NodeBytes = BTreeMap<u32, u64>;

/// Observes nodes, memory and vCPUs.
pub struct Numa {
    topology: Topology,
    reader: MemoryReader,
    host: HostNuma,
    vms: BTreeMap<VmKey, VmNuma>,
    proc: PathBuf,
}

/// What is known of one VM.
struct VmNuma {
    since_ns: u64,
    charges: VcpuCharges,
    memory: Option<Memory>,
}

impl Numa {
    /// Of the host with that `/proc`.
    pub fn new(proc: PathBuf) -> Self {
        let topology = Topology::of("/sys/devices/system/node".into());
        let mut nodes = topology.nodes.keys().copied();
        let only = nodes.next().filter(|_| nodes.next().is_none());
        Self {
            host: HostNuma::new(&topology),
            reader: MemoryReader::new(proc.clone(), only),
            topology,
            vms: BTreeMap::new(),
            proc,
        }
    }

    fn one_node(&self) -> bool {
        self.topology.nodes.len() < 2
    }

    /// The final window of a VM has what was read while it lived.
    fn read_memory(&mut self, vm: &SceneVm<'_>) {
        let Some(known) = self.vms.get_mut(&vm.vm.key) else {
            return;
        };
        if vm.live {
            known.memory = Some(self.reader.read(vm.vm, known.memory.take()));
        }
    }
}

impl Observer for Numa {
    fn status(&self) -> Vec<FamilyStatus> {
        let reason = match self.one_node() {
            true => Some(ONE_NODE.to_owned()),
            false => self.reader.reason(),
        };
        let source = self.reader.source().filter(|_| !self.one_node());
        vec![FamilyStatus {
            family: "numa_memory",
            source,
            reason,
        }]
    }

    fn tick(&mut self, scene: &Scene<'_>) {
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let known = self.vms.entry(vm.vm.key.clone()).or_insert_with(|| VmNuma {
                since_ns: monotonic_ns(),
                charges: VcpuCharges::default(),
                memory: None,
            });
            if self.topology.nodes.len() > 1 {
                known.charges.sample(&self.proc, vm.vm, &self.topology);
            }
        }
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let now_ns = monotonic_ns();
        let (mut vms, mut nodes) = (Vec::new(), Vec::new());
        for vm in &scene.vms {
            self.read_memory(vm);
            let Some(known) = self.vms.get_mut(&vm.vm.key) else {
                continue;
            };
            let span = Span {
                frame,
                vm,
                window_ns: now_ns.saturating_sub(known.since_ns),
                now_ns,
                topology: &self.topology,
            };
            let charges = known.charges.take();
            known.since_ns = now_ns;
            vms.push(span.vm_row(&charges, known.memory.as_ref()));
            nodes.extend(span.node_rows(&charges, known.memory.as_ref()));
        }
        let live = |key: &VmKey| scene.vms.iter().any(|vm| vm.live && vm.vm.key == *key);
        self.vms.retain(|key, _| live(key));
        let mut chunks = vec![Chunk::of(&vms), Chunk::of(&nodes)];
        chunks.extend(self.host.window(frame, &self.topology));
        chunks
    }
}

/// One VM in one window.
struct Span<'a> {
    frame: &'a Frame<'a>,
    vm: &'a SceneVm<'a>,
    window_ns: u64,
    now_ns: u64,
    topology: &'a Topology,
}

impl Span<'_> {
    fn vm_row(&self, charges: &Charges, memory: Option<&Memory>) -> VmNumaRow {
        let several = self.topology.nodes.len() > 1;
        let bytes = memory.and_then(|m| m.bytes.as_ref());
        let total = bytes.map(|b| b.values().sum::<u64>());
        let remote = bytes.filter(|_| several).and_then(|b| remote(b, charges));
        let share = remote.zip(total.filter(|t| *t > 0));
        VmNumaRow {
            ts: self.frame.ts,
            host: self.frame.host.to_owned(),
            vm_id: self.vm.vm.id.clone(),
            vm_name: self.vm.vm.info.name.clone(),
            window_ns: int(self.window_ns),
            nodes: count(self.topology.nodes.len()),
            memory_bytes: total.map(int),
            remote_bytes: remote.map(|(bytes, _)| int(bytes)),
            remote_share: share.map(|((bytes, _), total)| bytes as f64 / total as f64),
            elsewhere_bytes: remote.map(|(_, elsewhere)| int(elsewhere)),
            vcpu_nodes: several.then(|| count(charges.weights().len())),
            vcpu_time_ns: several.then(|| int(charges.time_ns())),
            source: bytes.and(memory.and_then(|m| m.source)).map(str::to_owned),
            age_ns: bytes
                .and(memory)
                .map(|m| int(self.now_ns.saturating_sub(m.at_ns))),
            read_ns: memory.map(|m| int(m.read_ns)),
            reason: self.reason(charges, memory),
        }
    }

    fn reason(&self, charges: &Charges, memory: Option<&Memory>) -> Option<String> {
        let unread = "the VM lived too short to be read".to_owned();
        match memory.map(|m| m.reason.clone()) {
            None => Some(unread),
            Some(Some(reason)) => Some(reason),
            Some(None) if self.topology.nodes.len() < 2 => Some(ONE_NODE.to_owned()),
            Some(None) if charges.weights().is_empty() => {
                Some("no vCPU was seen on a CPU of a known node".to_owned())
            }
            Some(None) => None,
        }
    }

    fn node_rows(&self, charges: &Charges, memory: Option<&Memory>) -> Vec<VmNumaNodeRow> {
        let weights = charges.weights();
        let several = self.topology.nodes.len() > 1;
        let bytes = memory.and_then(|m| m.bytes.as_ref());
        let told = several && !weights.is_empty();
        let row = |node: &u32| VmNumaNodeRow {
            ts: self.frame.ts,
            host: self.frame.host.to_owned(),
            vm_id: self.vm.vm.id.clone(),
            vm_name: self.vm.vm.info.name.clone(),
            node: i64::from(*node),
            window_ns: int(self.window_ns),
            bytes: bytes.map(|b| int(b.get(node).copied().unwrap_or(0))),
            vcpu_time_ns: several.then(|| int(charges.time_on(*node))),
            vcpu_share: told.then(|| weights.get(node).copied().unwrap_or(0.0)),
        };
        self.topology.nodes.keys().map(row).collect()
    }
}

/// Remote bytes weighed by where the vCPUs ran, and bytes where none ran.
fn remote(bytes: &NodeBytes, charges: &Charges) -> Option<(u64, u64)> {
    let weights = charges.weights();
    if weights.is_empty() {
        return None;
    }
    let mut sums = (0.0, 0);
    for (node, bytes) in bytes {
        let here = weights.get(node).copied().unwrap_or(0.0);
        sums.0 += *bytes as f64 * (1.0 - here);
        if here == 0.0 {
            sums.1 += bytes;
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sum of parts of 64-bit sizes, not below 0"
    )]
    Some((sums.0.round() as u64, sums.1))
}

#[cfg(test)]
mod tests;

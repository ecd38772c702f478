//! On which nodes the vCPUs of a VM ran.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::topology::Topology;
use crate::discover::{Role, ThreadKey, Vm};
use crate::sampler::stat;

/// CPU time and samples of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Charge {
    time_ns: u64,
    samples: u64,
}

/// What was charged to each node in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges(BTreeMap<u32, Charge>);

/// Charges the vCPUs of one VM, look by look.
#[derive(Default)]
pub struct VcpuCharges {
    seen: HashMap<ThreadKey, u64>,
    charges: Charges,
}

impl VcpuCharges {
    /// Looks at each vCPU thread. A field of its `stat` says where it runs or
    /// ran last, needs no privilege and costs a read of some µs.
    pub fn sample(&mut self, proc: &Path, vm: &Vm, topology: &Topology) {
        let before = std::mem::take(&mut self.seen);
        let vcpus = vm
            .threads
            .iter()
            .filter(|t| matches!(t.role, Role::Vcpu(_)));
        for thread in vcpus {
            let path = proc.join(format!("{}/task/{}/stat", thread.pid, thread.key.tid));
            let Some(stat) = std::fs::read(path).ok().and_then(|b| stat::parse(&b)) else {
                continue;
            };
            if stat.start_ticks != thread.key.start_ticks {
                continue;
            }
            self.seen.insert(thread.key, stat.cpu_ns);
            let Some(node) = stat.cpu.and_then(|cpu| topology.node_of(cpu)) else {
                continue;
            };
            let ran = before
                .get(&thread.key)
                .map_or(0, |then| stat.cpu_ns.saturating_sub(*then));
            self.charges.add(node, ran);
        }
    }

    /// Charges since the last call.
    pub fn take(&mut self) -> Charges {
        std::mem::take(&mut self.charges)
    }
}

impl Charges {
    /// One look at a vCPU that ran so long on that node.
    pub fn add(&mut self, node: u32, time_ns: u64) {
        let charge = self.0.entry(node).or_default();
        charge.time_ns += time_ns;
        charge.samples += 1;
    }

    /// Time charged to all nodes.
    pub fn time_ns(&self) -> u64 {
        self.0.values().map(|c| c.time_ns).sum()
    }

    /// Time charged to a node.
    pub fn time_on(&self, node: u32) -> u64 {
        self.0.get(&node).map_or(0, |c| c.time_ns)
    }

    /// Part of each node where a vCPU ran, 1 in all: by time, and by samples
    /// where all together ran less than a tick. Empty without any sample.
    pub fn weights(&self) -> BTreeMap<u32, f64> {
        let time = self.time_ns();
        let weigh: fn(&Charge) -> u64 = match time {
            0 => |c| c.samples,
            _ => |c| c.time_ns,
        };
        let all: u64 = self.0.values().map(weigh).sum();
        self.0
            .iter()
            .filter(|(_, c)| weigh(c) > 0)
            .map(|(node, c)| (*node, weigh(c) as f64 / all as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_by_time_else_by_samples() {
        let mut charges = Charges::default();
        assert!(charges.weights().is_empty());
        charges.add(0, 0);
        charges.add(1, 0);
        charges.add(1, 0);
        charges.add(1, 0);
        assert_eq!(charges.weights(), [(0, 0.25), (1, 0.75)].into());
        charges.add(0, 10_000_000);
        // Nodes where nothing ran carry no weight once something ran.
        assert_eq!(charges.weights(), [(0, 1.0)].into());
        assert_eq!((charges.time_ns(), charges.time_on(1)), (10_000_000, 0));
    }
}

//! Memory of a VM by node, from the cheapest source that tells the truth.

use std::path::PathBuf;

use super::cgroup::{self, CgroupMemory};
use super::{NodeBytes, maps};
use crate::cgroup::Cgroups;
use crate::clock::monotonic_ns;
use crate::counters::Counters;
use crate::discover::Vm;
use crate::files;

/// Least time between two walks of a VM's page tables.
const WALK_EVERY_NS: u64 = 60_000_000_000;
/// A walk takes at most this part of the time.
const WALK_PART: u64 = 1000;

const CGROUP: &str = "cgroup";
const NUMA_MAPS: &str = "numa_maps";
const NODE: &str = "node";

/// Memory by node at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `None` when unavailable.
    pub bytes: Option<NodeBytes>,
    /// What told it.
    pub source: Option<&'static str>,
    /// When.
    pub at_ns: u64,
    /// What reading took.
    pub read_ns: u64,
    /// Why it is unavailable.
    pub reason: Option<String>,
}

/// Reads the memory of VMs.
pub struct MemoryReader {
    proc: PathBuf,
    cgroups: Cgroups,
    only_node: Option<u32>,
    told: Option<(&'static str, u64)>,
    failed: Option<String>,
}

/// Memory of a process as `/proc/<pid>/status` sums it up, for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Resident {
    anon: u64,
    shmem: u64,
    huge: u64,
}

impl MemoryReader {
    /// For that `/proc`; `only_node` on a host with one.
    pub fn new(proc: PathBuf, only_node: Option<u32>) -> Self {
        Self {
            cgroups: Cgroups::new(proc.clone()),
            proc,
            only_node,
            told: None,
            failed: None,
        }
    }

    /// The source that told last, and its cost.
    pub fn source(&self) -> Option<String> {
        let (source, read_ns) = self.told?;
        Some(format!("{source}, {} µs a VM and window", read_ns / 1000))
    }

    /// Why the last VM could not be read.
    pub fn reason(&self) -> Option<String> {
        self.failed.clone()
    }

    /// Memory of a VM now, or as it was when its page tables were last walked.
    pub fn read(&mut self, vm: &Vm, before: Option<Memory>) -> Memory {
        let began = monotonic_ns();
        let pid = vm.key.pid;
        let status = files::text(self.proc.join(format!("{pid}/status")));
        let resident = status.map(|text| resident(&text));
        let Some(resident) = resident else {
            return self.failed(began, "the VM's process is gone".to_owned());
        };
        if let Some(node) = self.only_node {
            let bytes = resident.anon + resident.shmem + resident.huge;
            return self.told(began, NODE, [(node, bytes)].into());
        }
        let own = cgroup::read(&self.cgroups, vm);
        match own.and_then(|own| covering(own, resident)) {
            Some(bytes) => self.told(began, CGROUP, bytes),
            None => self.walk(vm, before, began),
        }
    }

    fn walk(&mut self, vm: &Vm, before: Option<Memory>, began: u64) -> Memory {
        if let Some(before) = before.filter(|m| m.source != Some(CGROUP)) {
            let rest = WALK_EVERY_NS.max(before.read_ns.saturating_mul(WALK_PART));
            if began.saturating_sub(before.at_ns) < rest {
                return before;
            }
        }
        let path = self.proc.join(format!("{}/numa_maps", vm.key.pid));
        match std::fs::read_to_string(path).map(|text| maps::parse(&text)) {
            Ok(Some(bytes)) => self.told(began, NUMA_MAPS, bytes),
            Ok(None) => self.failed(began, "numa_maps of the VM's process is empty".to_owned()),
            Err(error) => {
                let reason = format!(
                    "no cgroup of the VM's own tells nodes (memory controller on, one VM a cgroup; hugetlb controller for huge pages), and numa_maps is closed without CAP_SYS_PTRACE: {error}"
                );
                self.failed(began, reason)
            }
        }
    }

    fn told(&mut self, began: u64, source: &'static str, bytes: NodeBytes) -> Memory {
        let read_ns = monotonic_ns().saturating_sub(began);
        self.told = Some((source, read_ns));
        Memory {
            bytes: Some(bytes),
            source: Some(source),
            at_ns: began,
            read_ns,
            reason: None,
        }
    }

    fn failed(&mut self, began: u64, reason: String) -> Memory {
        self.failed = Some(reason.clone());
        Memory {
            bytes: None,
            source: None,
            at_ns: began,
            read_ns: monotonic_ns().saturating_sub(began),
            reason: Some(reason),
        }
    }
}

/// The cgroup's figures if they cover what the process has: memory that it
/// touched before it was moved there is charged elsewhere, and huge pages are
/// counted by another controller.
fn covering(own: CgroupMemory, resident: Resident) -> Option<NodeBytes> {
    let covers = |bytes: &NodeBytes, needed: u64| bytes.values().sum::<u64>() >= needed / 10 * 8;
    if !covers(&own.memory, resident.anon + resident.shmem) {
        return None;
    }
    let mut sums = own.memory;
    if resident.huge > 0 {
        let huge = own.huge.filter(|huge| covers(huge, resident.huge))?;
        for (node, bytes) in huge {
            *sums.entry(node).or_default() += bytes;
        }
    }
    Some(sums)
}

fn resident(status: &str) -> Resident {
    let status = Counters::parse(&["RssAnon", "RssShmem", "HugetlbPages"], status);
    let bytes = |name| status.bytes(name).unwrap_or(0);
    Resident {
        anon: bytes("RssAnon"),
        shmem: bytes("RssShmem"),
        huge: bytes("HugetlbPages"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tqemu-system-x86\nVmRSS:\t  600000 kB\nRssAnon:\t  524288 kB\nRssFile:\t   70000 kB\nRssShmem:\t    1024 kB\nHugetlbPages:\t    2048 kB\n";

    fn own(memory: u64, huge: Option<u64>) -> CgroupMemory {
        CgroupMemory {
            memory: [(0, memory / 2), (1, memory / 2)].into(),
            huge: huge.map(|h| [(1, h)].into()),
        }
    }

    #[test]
    fn a_cgroup_must_cover_the_process() {
        let resident = resident(STATUS);
        assert_eq!(
            (resident.anon, resident.shmem, resident.huge),
            (512 << 20, 1 << 20, 2 << 20)
        );
        let half = 260 << 20;
        let sums = covering(own(2 * half, Some(2 << 20)), resident).unwrap();
        assert_eq!(sums, [(0, half), (1, half + (2 << 20))].into());
        assert_eq!(covering(own(half, Some(2 << 20)), resident), None);
        assert_eq!(covering(own(2 * half, None), resident), None);
        assert_eq!(covering(own(2 * half, Some(0)), resident), None);
        let small = Resident {
            huge: 0,
            ..resident
        };
        assert!(covering(own(2 * half, None), small).is_some());
    }
}

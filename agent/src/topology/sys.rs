//! Reads a topology from the files below a root.

use std::collections::BTreeMap;
use std::path::Path;

use super::cpuinfo::{self, Info};
use super::{Cpu, Node, Topology, list};
use crate::counters::Counters;
use crate::files;

/// CPU caches to look through for the L3: no CPU of KVM's has ten.
const MAX_CACHES: u32 = 10;

/// The topology that `sys` (mostly `/sys`) and `proc` (`/proc`) tell. A file
/// that is missing makes a field unavailable and nothing else.
#[must_use]
pub fn read(sys: &Path, proc: &Path) -> Topology {
    let system = sys.join("devices/system");
    let info = files::text(proc.join("cpuinfo")).map_or_else(BTreeMap::new, |t| cpuinfo::parse(&t));
    let cpu_list = |file: &str| list::read(system.join("cpu").join(file));
    let online = cpu_list("online").unwrap_or_else(|| info.keys().copied().collect());
    let present = cpu_list("present").unwrap_or_else(|| online.clone());
    let nodes = nodes(&system.join("node"), proc, &online);
    let cpu = |cpu: u32| {
        if online.binary_search(&cpu).is_err() {
            return Cpu {
                cpu,
                ..Cpu::default()
            };
        }
        let node = nodes.iter().find(|n| n.cpus.binary_search(&cpu).is_ok());
        Cpu {
            node: node.map(|n| n.node),
            ..online_cpu(&system, cpu, info.get(&cpu))
        }
    };
    let cpus = present.into_iter().map(cpu).collect();
    Topology { cpus, nodes }
}

fn online_cpu(system: &Path, cpu: u32, info: Option<&Info>) -> Cpu {
    let dir = system.join(format!("cpu/cpu{cpu}"));
    // `thread_siblings_list` is its older name.
    let siblings = ["core_cpus_list", "thread_siblings_list"]
        .into_iter()
        .find_map(|file| list::read(dir.join("topology").join(file)))
        .filter(|siblings| siblings.contains(&cpu));
    let siblings = siblings.unwrap_or_else(|| vec![cpu]);
    let info = info.cloned().unwrap_or_default();
    Cpu {
        cpu,
        online: true,
        // -1 where firmware tells none (arm64 before ACPI PPTT).
        socket: files::number(dir.join("topology/physical_package_id")),
        node: None,
        core: siblings.first().copied(),
        smt_siblings: siblings,
        l3: l3(&dir),
        model: info.model,
        generation: info.generation,
        microcode: info.microcode,
        mhz_max: files::number::<u32>(dir.join("cpufreq/cpuinfo_max_freq")).map(khz),
        mhz_base: base_mhz(&dir).or(info.mhz_base),
        cpu_capacity: files::number(dir.join("cpu_capacity")),
    }
}

/// Guaranteed frequency of intel_pstate, else CPPC's nominal one.
fn base_mhz(dir: &Path) -> Option<f64> {
    let guaranteed = files::number::<u32>(dir.join("cpufreq/base_frequency")).map(khz);
    // In MHz already; 0 where firmware leaves it out.
    let nominal = || files::number::<u32>(dir.join("acpi_cppc/nominal_freq")).map(f64::from);
    guaranteed.or_else(nominal).filter(|mhz| *mhz > 0.0)
}

fn l3(dir: &Path) -> Option<u32> {
    let caches = (0..MAX_CACHES).map(|i| dir.join(format!("cache/index{i}")));
    let mut found = caches
        .take_while(|cache| cache.is_dir())
        .filter(|cache| files::number(cache.join("level")) == Some(3u32));
    let shared = list::read(found.next()?.join("shared_cpu_list"))?;
    shared.first().copied()
}

/// Online nodes; the whole host as node 0 on a kernel without NUMA.
fn nodes(dir: &Path, proc: &Path, online: &[u32]) -> Vec<Node> {
    let numbers = list::read(dir.join("online"));
    let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
        let memory = files::text(proc.join("meminfo"));
        return vec![Node {
            node: 0,
            cpus: online.to_vec(),
            memory_bytes: memory.and_then(|t| total_bytes(&t)),
            distances: Vec::new(),
        }];
    };
    let node = |node: u32| {
        let dir = dir.join(format!("node{node}"));
        let distances = files::text(dir.join("distance")).unwrap_or_default();
        Node {
            node,
            cpus: list::read(dir.join("cpulist")).unwrap_or_default(),
            memory_bytes: files::text(dir.join("meminfo")).and_then(|t| total_bytes(&t)),
            distances: distances
                .split_ascii_whitespace()
                .map_while(|d| d.parse().ok())
                .collect(),
        }
    };
    numbers.into_iter().map(node).collect()
}

/// Of the host or of a node.
fn total_bytes(meminfo: &str) -> Option<u64> {
    Counters::parse(&["MemTotal"], meminfo).bytes("MemTotal")
}

fn khz(value: u32) -> f64 {
    f64::from(value) / 1000.0
}

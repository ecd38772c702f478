//! Nodes as a whole, and automatic balancing between them.

use std::collections::BTreeMap;

use headroom_core::batch::Chunk;
use headroom_core::rows::{HostNumaRow, NodeRow};

use super::topology::Topology;
use crate::clock::monotonic_ns;
use crate::counters::Counters;
use crate::files;
use crate::sampler::rows::{Frame, count, int};

/// Cumulative figures of the nodes and the host.
pub struct HostNuma {
    base: Reading,
}

/// Names in `numastat` of a node (drivers/base/node.c).
const NUMASTAT: &[&str] = &[
    "numa_hit",
    "numa_miss",
    "numa_foreign",
    "interleave_hit",
    "local_node",
    "other_node",
];

/// Names in `/proc/vmstat` (mm/vmstat.c).
const VMSTAT: &[&str] = &[
    "numa_hint_faults",
    "numa_hint_faults_local",
    "numa_pages_migrated",
    "numa_pte_updates",
    "pgmigrate_success",
    "pgmigrate_fail",
];

struct Reading {
    at_ns: u64,
    nodes: BTreeMap<u32, Counters>,
    vmstat: Counters,
}

impl HostNuma {
    /// Starts at the present figures.
    pub fn new(topology: &Topology) -> Self {
        Self {
            base: read(topology),
        }
    }

    /// Rows since the last window.
    pub fn window(&mut self, frame: &Frame<'_>, topology: &Topology) -> Vec<Chunk> {
        let now = read(topology);
        let base = std::mem::replace(&mut self.base, now);
        let now = &self.base;
        let window_ns = int(now.at_ns.saturating_sub(base.at_ns));
        let node = |(node, figures): (&u32, &Counters)| NodeRow {
            window_ns,
            ..node_row(frame, topology, *node, (base.nodes.get(node), figures))
        };
        let nodes: Vec<NodeRow> = now.nodes.iter().map(node).collect();
        let host = HostNumaRow {
            window_ns,
            ..host_row(frame, topology, (&base.vmstat, &now.vmstat))
        };
        vec![Chunk::of(&nodes), Chunk::of(&[host])]
    }
}

fn read(topology: &Topology) -> Reading {
    let of_node = |node: &u32| {
        let text = topology.file(*node, "numastat").unwrap_or_default();
        (*node, Counters::parse(NUMASTAT, &text))
    };
    let vmstat = files::text("/proc/vmstat").unwrap_or_default();
    Reading {
        at_ns: monotonic_ns(),
        nodes: topology.nodes.keys().map(of_node).collect(),
        vmstat: Counters::parse(VMSTAT, &vmstat),
    }
}

fn node_row(
    frame: &Frame<'_>,
    topology: &Topology,
    node: u32,
    (base, now): (Option<&Counters>, &Counters),
) -> NodeRow {
    let base = base.filter(|_| topology.nodes.len() > 1);
    let by = |name| now.grown(base?, name).map(int);
    let meminfo = topology.file(node, "meminfo").unwrap_or_default();
    let meminfo = Counters::parse(&["MemTotal", "MemFree"], &meminfo);
    NodeRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        node: i64::from(node),
        cpus: topology.nodes.get(&node).map(|cpus| count(cpus.len())),
        memory_bytes: meminfo.bytes("MemTotal").map(int),
        memory_free_bytes: meminfo.bytes("MemFree").map(int),
        numa_hit: by("numa_hit"),
        numa_miss: by("numa_miss"),
        numa_foreign: by("numa_foreign"),
        interleave_hit: by("interleave_hit"),
        local_node: by("local_node"),
        other_node: by("other_node"),
        ..NodeRow::default()
    }
}

fn host_row(
    frame: &Frame<'_>,
    topology: &Topology,
    figures: (&Counters, &Counters),
) -> HostNumaRow {
    let several = topology.nodes.len() > 1;
    let (base, now) = figures;
    let by = |name| now.grown(base, name).filter(|_| several).map(int);
    let (faults, local) = (by("numa_hint_faults"), by("numa_hint_faults_local"));
    let share = |(all, local): (i64, i64)| (all > 0).then(|| 1.0 - local as f64 / all as f64);
    let reason = match (several, faults) {
        (false, _) => Some(super::ONE_NODE),
        (_, None) => Some("the kernel has no NUMA balancing (CONFIG_NUMA_BALANCING)"),
        _ => None,
    };
    let mode = files::text("/proc/sys/kernel/numa_balancing");
    HostNumaRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        nodes: count(topology.nodes.len()),
        balancing: mode.filter(|_| several).and_then(|m| balancing(&m)),
        hint_faults: faults,
        hint_faults_local: local,
        hint_faults_remote_share: faults.zip(local).and_then(share),
        pages_migrated: by("numa_pages_migrated"),
        pte_updates: by("numa_pte_updates"),
        migrate_success: by("pgmigrate_success"),
        migrate_fail: by("pgmigrate_fail"),
        reason: reason.map(str::to_owned),
        ..HostNumaRow::default()
    }
}

/// Documentation/admin-guide/sysctl/kernel.rst: bit 0 balancing, bit 1
/// memory tiering.
fn balancing(text: &str) -> Option<String> {
    let mode: u32 = text.trim().parse().ok()?;
    Some(
        match mode {
            0 => "off",
            m if m & 2 != 0 => "tiering",
            _ => "on",
        }
        .to_owned(),
    )
}

#[cfg(test)]
mod tests;

//! Memory by node of a cgroup that belongs to one VM alone.
//!
//! Documentation/admin-guide/cgroup-v2.rst (`memory.numa_stat`, bytes) and
//! cgroup-v1/memory.rst (pages); `hugetlb.<size>.numa_stat` since 5.17,
//! mm/hugetlb_cgroup.c (bytes).

use std::collections::BTreeMap;
use std::path::Path;

use super::NodeBytes;
use super::maps::node;
use crate::cgroup::{Cgroups, Controller, Version};
use crate::discover::Vm;
use crate::files;

/// What the cgroup of a VM says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupMemory {
    /// Anonymous and shared memory.
    pub memory: NodeBytes,
    /// Memory in pages of hugetlbfs, where the controller tells.
    pub huge: Option<NodeBytes>,
}

/// Memory of the cgroups that a VM has to itself. `None` where it has none, or
/// the kernel does not tell nodes.
pub fn read(cgroups: &Cgroups, vm: &Vm) -> Option<CgroupMemory> {
    const FILE: &str = "memory.numa_stat";
    let own = cgroups.whole(vm, Controller::Memory, FILE)?;
    let text = files::text(own.dir.join(FILE))?;
    let memory = match own.version {
        Version::V1 => v1(&text)?,
        Version::V2 => v2(&text)?,
    };
    // A file each page size: their names differ from machine to machine.
    let huge = cgroups.whole(vm, Controller::Hugetlb, "cgroup.procs");
    let huge = huge.and_then(|own| huge_pages(&own.dir, own.version));
    Some(CgroupMemory { memory, huge })
}

/// `anon N0=4096 N1=0`, bytes. Page cache (`file`) is no guest memory, but
/// shared memory counts as such and has a line of its own.
fn v2(text: &str) -> Option<NodeBytes> {
    sum(text, |name| matches!(name, "anon" | "shmem"), 1)
}

/// `hierarchical_anon=5 N0=3 N1=2`, pages; shared memory is on the anonymous
/// lists, locked memory on the unevictable one.
fn v1(text: &str) -> Option<NodeBytes> {
    let page = rustix::param::page_size() as u64;
    let counts = |name: &str| matches!(name, "hierarchical_anon" | "hierarchical_unevictable");
    sum(text, counts, page)
}

fn sum(text: &str, counts: impl Fn(&str) -> bool, unit: u64) -> Option<NodeBytes> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let name = fields.next()?;
        if counts(name.split('=').next()?) {
            for (node, amount) in fields.filter_map(node) {
                *sums.entry(node).or_default() += amount.saturating_mul(unit);
            }
        }
    }
    (!sums.is_empty()).then_some(sums)
}

/// Sum over all sizes of `hugetlb.2MB.numa_stat`, `hugetlb.1GB.numa_stat`, of
/// the group and those below.
fn huge_pages(dir: &Path, version: Version) -> Option<NodeBytes> {
    let line = match version {
        Version::V1 => "hierarchical_total",
        Version::V2 => "total",
    };
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let mut sums: Option<NodeBytes> = None;
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if !(name.starts_with("hugetlb.") && name.ends_with(".numa_stat")) {
            continue;
        }
        let text = files::text(entry.path())?;
        let sums = sums.get_or_insert_with(NodeBytes::new);
        for (node, bytes) in sum(&text, |name| name == line, 1)? {
            *sums.entry(node).or_default() += bytes;
        }
    }
    sums
}

#[cfg(test)]
mod tests;

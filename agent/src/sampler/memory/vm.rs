//! Memory of one VM: its process and its own cgroup.

use std::path::{Path, PathBuf};

use headroom_core::rows::VmMemoryRow;

use super::cgroup::Own;
use crate::cgroup::Version;
use crate::clock::monotonic_ns;
use crate::counters::{Counters, Pressure};
use crate::files;
use crate::sampler::rows::int;

/// Names in `/proc/P/status` (fs/proc/task_mmu.c); all in KiB.
const STATUS: &[&str] = &["VmRSS", "RssAnon", "RssShmem", "HugetlbPages", "VmSwap"];

/// Names in `memory.stat` of version 2 (mm/memcontrol.c).
const STAT_V2: &[&str] = &[
    "anon",
    "file",
    "shmem",
    "anon_thp",
    "zswap",
    "pgscan",
    "pgsteal",
    "pgscan_direct",
    "pgsteal_direct",
    "pswpin",
    "pswpout",
    "pgmajfault",
    "workingset_refault_anon",
    "workingset_refault_file",
    "thp_fault_alloc",
];

/// Names in `memory.stat` of version 1 (mm/memcontrol-v1.c), those below the
/// group included.
const STAT_V1: &[&str] = &[
    "total_rss",
    "total_cache",
    "total_shmem",
    "total_rss_huge",
    "total_swap",
    "total_pgmajfault",
    "total_workingset_refault_anon",
    "total_workingset_refault_file",
    "hierarchical_memory_limit",
];

/// Names in `memory.events` (v2) and `memory.oom_control` (v1).
const EVENTS: &[&str] = &["high", "max", "oom_kill"];

/// A limit of version 1 that is none: `PAGE_COUNTER_MAX` in bytes, rounded to
/// pages of whatever size.
const NO_LIMIT: u64 = i64::MAX as u64 - (1 << 20);

/// The process's memory; all `None` once it is gone.
#[derive(Clone, Debug, Default)]
pub struct Process(Counters);

impl Process {
    pub fn read(proc: &Path, pid: u32) -> Self {
        let status = text(&proc.join(format!("{pid}/status")));
        Self(Counters::parse(STATUS, &status))
    }

    /// Memory in swap, bytes.
    pub fn swapped(&self) -> Option<u64> {
        self.0.bytes("VmSwap")
    }

    pub fn fill(&self, row: &mut VmMemoryRow) {
        let bytes = |name| self.0.bytes(name).map(int);
        row.resident_bytes = bytes("VmRSS");
        row.resident_anon_bytes = bytes("RssAnon");
        row.resident_shmem_bytes = bytes("RssShmem");
        row.hugetlb_bytes = bytes("HugetlbPages");
        row.swapped_bytes = bytes("VmSwap");
    }
}

/// The few figures that the ladder is watched by, once a second: without
/// `memory.stat`, for which the kernel adds up all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Times that a limit was reached, which makes the kernel reclaim.
    pub limit_hits: Option<u64>,
    /// Times over `memory.high`.
    pub high_hits: Option<u64>,
    /// Processes killed.
    pub oom_kills: Option<u64>,
}

impl Signs {
    pub fn read(own: &Own) -> Self {
        let Some((dir, version)) = &own.memory else {
            return Self::default();
        };
        let file = |name: &str| text(&dir.join(name));
        match version {
            Version::V2 => {
                let events = Counters::parse(EVENTS, &file("memory.events"));
                Self {
                    limit_hits: events.get("max"),
                    high_hits: events.get("high"),
                    oom_kills: events.get("oom_kill"),
                }
            }
            Version::V1 => Self {
                limit_hits: files::number(dir.join("memory.failcnt")),
                high_hits: None,
                oom_kills: Counters::parse(EVENTS, &file("memory.oom_control")).get("oom_kill"),
            },
        }
    }
}

/// What a VM's cgroups say at one time.
#[derive(Clone, Debug, Default)]
pub struct CgroupReading {
    pub at_ns: u64,
    pub signs: Signs,
    stat: Counters,
    memory: Pressure,
    io: Pressure,
    cpu: Pressure,
}

impl CgroupReading {
    pub fn read(own: &Own) -> Self {
        let names = match &own.memory {
            Some((_, Version::V1)) => STAT_V1,
            _ => STAT_V2,
        };
        let stat = own.memory.as_ref().map(|(dir, _)| dir.join("memory.stat"));
        let pressure = |of: &str| {
            let file = own.pressure.as_ref().map(|dir| dir.join(of));
            Pressure::parse(&file.map(|f| text(&f)).unwrap_or_default())
        };
        Self {
            at_ns: monotonic_ns(),
            signs: Signs::read(own),
            stat: Counters::parse(names, &stat.map(|s| text(&s)).unwrap_or_default()),
            memory: pressure("memory.pressure"),
            io: pressure("io.pressure"),
            cpu: pressure("cpu.pressure"),
        }
    }

    /// What happened since `base`, and the amounts of now, into a row.
    pub fn fill(&self, base: &Self, own: &Own, row: &mut VmMemoryRow) {
        let grown =
            |now: Option<u64>, then: Option<u64>| now.zip(then)?.0.checked_sub(then?).map(int);
        row.limit_hits = grown(self.signs.limit_hits, base.signs.limit_hits);
        row.high_hits = grown(self.signs.high_hits, base.signs.high_hits);
        row.oom_kills = grown(self.signs.oom_kills, base.signs.oom_kills);
        row.cgroup.clone_from(&own.name);
        match &own.memory {
            Some((dir, Version::V2)) => self.fill_v2(base, dir, row),
            Some((dir, Version::V1)) => self.fill_v1(base, dir, row),
            None => {}
        }
        let pressure = self.memory.since(&base.memory);
        row.psi_memory_some_ns = pressure.some_ns.map(int);
        row.psi_memory_full_ns = pressure.full_ns.map(int);
        let pressure = self.io.since(&base.io);
        row.psi_io_some_ns = pressure.some_ns.map(int);
        row.psi_io_full_ns = pressure.full_ns.map(int);
        let pressure = self.cpu.since(&base.cpu);
        row.psi_cpu_some_ns = pressure.some_ns.map(int);
        row.psi_cpu_full_ns = pressure.full_ns.map(int);
    }

    fn fill_v2(&self, base: &Self, dir: &Path, row: &mut VmMemoryRow) {
        let page_bytes = rustix::param::page_size() as u64;
        let now = |name| self.stat.get(name).map(int);
        let grown = |name| self.stat.grown(&base.stat, name);
        row.cgroup_version = Some(2);
        row.limit_bytes = smallest(dir, "memory.max").map(int);
        row.high_bytes = smallest(dir, "memory.high").map(int);
        row.used_bytes = files::number(dir.join("memory.current")).map(int);
        row.swap_bytes = files::number(dir.join("memory.swap.current")).map(int);
        row.anon_bytes = now("anon");
        row.file_bytes = now("file");
        row.shmem_bytes = now("shmem");
        row.anon_huge_bytes = now("anon_thp");
        row.zswap_bytes = now("zswap");
        row.scanned = grown("pgscan").map(int);
        row.stolen = grown("pgsteal").map(int);
        row.direct_scanned = grown("pgscan_direct").map(int);
        row.direct_stolen = grown("pgsteal_direct").map(int);
        row.swap_in_bytes = grown("pswpin").map(|p| int(p * page_bytes));
        row.swap_out_bytes = grown("pswpout").map(|p| int(p * page_bytes));
        row.major_faults = grown("pgmajfault").map(int);
        row.refault_anon = grown("workingset_refault_anon").map(int);
        row.refault_file = grown("workingset_refault_file").map(int);
        row.thp_fault_alloc = grown("thp_fault_alloc").map(int);
    }

    fn fill_v1(&self, base: &Self, dir: &Path, row: &mut VmMemoryRow) {
        let now = |name| self.stat.get(name).map(int);
        let grown = |name| self.stat.grown(&base.stat, name).map(int);
        row.cgroup_version = Some(1);
        row.limit_bytes = self
            .stat
            .get("hierarchical_memory_limit")
            .filter(|limit| *limit < NO_LIMIT)
            .map(int);
        row.used_bytes = files::number(dir.join("memory.usage_in_bytes")).map(int);
        row.swap_bytes = now("total_swap");
        row.anon_bytes = now("total_rss");
        row.file_bytes = now("total_cache");
        row.shmem_bytes = now("total_shmem");
        row.anon_huge_bytes = now("total_rss_huge");
        row.major_faults = grown("total_pgmajfault");
        row.refault_anon = grown("total_workingset_refault_anon");
        row.refault_file = grown("total_workingset_refault_file");
    }
}

/// Smallest value of a limit file from a group up to the root, which has none.
fn smallest(dir: &Path, file: &str) -> Option<u64> {
    let limits = dir.ancestors().map(|dir| dir.join(file));
    // "max" is no number.
    limits
        .map_while(|file: PathBuf| files::text(file))
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

/// A file's text, empty where it cannot be read.
fn text(path: &Path) -> String {
    files::text(path).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! Memory of the host as `/proc` and `/sys` tell it.

use std::path::{Path, PathBuf};

use headroom_core::rows::HostMemoryRow;

use crate::clock::monotonic_ns;
use crate::counters::{Counters, Pressure};
use crate::files;
use crate::sampler::rows::int;

/// Names in `/proc/meminfo` (fs/proc/meminfo.c).
const MEMINFO: &[&str] = &[
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "AnonPages",
    "Shmem",
    "Slab",
    "Dirty",
    "Writeback",
    "AnonHugePages",
    "HugePages_Total",
    "HugePages_Free",
    "Hugepagesize",
    "SwapTotal",
    "SwapFree",
    "Zswap",
    "Zswapped",
];

/// Direct reclaims by zone: which zones there are depends on the machine.
const ALLOCSTALL: [&str; 5] = [
    "allocstall_dma",
    "allocstall_dma32",
    "allocstall_normal",
    "allocstall_movable",
    "allocstall_device",
];

/// Names in `/proc/vmstat` (mm/vmstat.c).
const VMSTAT: &[&str] = &[
    "pswpin",
    "pswpout",
    "zswpin",
    "zswpout",
    "zswpwb",
    "swpout_zero",
    ALLOCSTALL[0],
    ALLOCSTALL[1],
    ALLOCSTALL[2],
    ALLOCSTALL[3],
    ALLOCSTALL[4],
    "pgscan_direct",
    "pgsteal_direct",
    "pgscan_kswapd",
    "pgsteal_kswapd",
    "workingset_refault_anon",
    "workingset_refault_file",
    "compact_stall",
    "compact_fail",
    "compact_success",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "thp_fault_fallback_charge",
    "thp_split_page",
    "oom_kill",
];

/// `/proc/vmstat`, cumulative.
#[derive(Clone, Debug, Default)]
pub struct VmStat(Counters);

impl VmStat {
    /// Direct reclaims since boot.
    pub fn direct_reclaims(&self) -> Option<u64> {
        self.0.sum(&ALLOCSTALL)
    }

    /// One of the figures.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name)
    }

    fn grown(&self, base: &Self, name: &str) -> Option<i64> {
        self.0.grown(&base.0, name).map(int)
    }
}

/// What is cumulative, at one time.
#[derive(Clone, Debug, Default)]
pub struct HostReading {
    at_ns: u64,
    vmstat: VmStat,
    memory: Pressure,
    io: Pressure,
    cpu: Pressure,
}

/// Reads the host's files below a `/proc` and a `/sys`.
pub struct HostFiles {
    proc: PathBuf,
    sys: PathBuf,
    page_bytes: u64,
}

impl HostFiles {
    pub fn new(proc: &Path, sys: &Path) -> Self {
        Self {
            proc: proc.into(),
            sys: sys.into(),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// The counters of the kernel's memory management.
    pub fn vmstat(&self) -> VmStat {
        VmStat(Counters::parse(VMSTAT, &text(&self.proc.join("vmstat"))))
    }

    pub fn read(&self) -> HostReading {
        let pressure = |of| Pressure::parse(&text(&self.proc.join("pressure").join(of)));
        HostReading {
            at_ns: monotonic_ns(),
            vmstat: self.vmstat(),
            memory: pressure("memory"),
            io: pressure("io"),
            cpu: pressure("cpu"),
        }
    }

    /// The row of the time between two readings; amounts are those of now.
    pub fn row(&self, base: &HostReading, end: &HostReading) -> HostMemoryRow {
        let mut row = HostMemoryRow {
            window_ns: int(end.at_ns.saturating_sub(base.at_ns)),
            ..HostMemoryRow::default()
        };
        let meminfo = text(&self.proc.join("meminfo"));
        amounts(&Counters::parse(MEMINFO, &meminfo), &mut row);
        self.shared_and_compressed(&mut row);
        self.swapped(base, end, &mut row);
        happened(&base.vmstat, &end.vmstat, &mut row);
        pressures(base, end, &mut row);
        row
    }

    fn shared_and_compressed(&self, row: &mut HostMemoryRow) {
        let ksm = |file: &str| {
            let pages: u64 = files::number(self.sys.join("kernel/mm/ksm").join(file))?;
            Some(int(pages * self.page_bytes))
        };
        row.ksm_shared_bytes = ksm("pages_shared");
        row.ksm_sharing_bytes = ksm("pages_sharing");
        if let Some([stored, compressed, used]) = self.zram() {
            row.zram_stored_bytes = Some(int(stored));
            row.zram_compressed_bytes = Some(int(compressed));
            row.zram_used_bytes = Some(int(used));
        }
    }

    /// `orig_data_size compr_data_size mem_used_total …` of the devices that
    /// have a size (Documentation/admin-guide/blockdev/zram.rst).
    fn zram(&self) -> Option<[u64; 3]> {
        let mut sum = None;
        for entry in std::fs::read_dir(self.sys.join("block")).ok()?.flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(b"zram") {
                continue;
            }
            let size = text(&entry.path().join("disksize"));
            if matches!(size.trim(), "" | "0") {
                continue;
            }
            let stat = text(&entry.path().join("mm_stat"));
            let mut figures = stat.split_ascii_whitespace();
            let total = sum.get_or_insert([0; 3]);
            for part in total {
                *part += figures.next()?.parse::<u64>().ok()?;
            }
        }
        sum
    }

    fn swapped(&self, base: &HostReading, end: &HostReading, row: &mut HostMemoryRow) {
        let bytes = |name| {
            let pages = end.vmstat.0.grown(&base.vmstat.0, name)?;
            Some(int(pages * self.page_bytes))
        };
        row.swap_in_bytes = bytes("pswpin");
        row.swap_out_bytes = bytes("pswpout");
        row.zswap_in_bytes = bytes("zswpin");
        row.zswap_out_bytes = bytes("zswpout");
        row.zswap_written_back_bytes = bytes("zswpwb");
    }
}

fn amounts(meminfo: &Counters, row: &mut HostMemoryRow) {
    let of = |name| meminfo.bytes(name);
    let bytes = |name| of(name).map(int);
    let huge = |name| Some(int(meminfo.get(name)? * of("Hugepagesize")?));
    row.total_bytes = bytes("MemTotal");
    row.free_bytes = bytes("MemFree");
    row.available_bytes = bytes("MemAvailable");
    row.cached_bytes = of("Cached").zip(of("Buffers")).map(|(c, b)| int(c + b));
    row.anon_bytes = bytes("AnonPages");
    row.shmem_bytes = bytes("Shmem");
    row.slab_bytes = bytes("Slab");
    row.dirty_bytes = bytes("Dirty");
    row.writeback_bytes = bytes("Writeback");
    row.anon_huge_bytes = bytes("AnonHugePages");
    row.hugetlb_total_bytes = huge("HugePages_Total");
    row.hugetlb_free_bytes = huge("HugePages_Free");
    row.swap_total_bytes = bytes("SwapTotal");
    row.swap_used_bytes = of("SwapTotal")
        .zip(of("SwapFree"))
        .and_then(|(total, free)| total.checked_sub(free))
        .map(int);
    row.zswap_pool_bytes = bytes("Zswap");
    row.zswap_stored_bytes = bytes("Zswapped");
}

fn happened(base: &VmStat, end: &VmStat, row: &mut HostMemoryRow) {
    row.direct_reclaims = end
        .direct_reclaims()
        .zip(base.direct_reclaims())
        .and_then(|(e, b)| e.checked_sub(b))
        .map(int);
    row.direct_scanned = end.grown(base, "pgscan_direct");
    row.direct_stolen = end.grown(base, "pgsteal_direct");
    row.kswapd_scanned = end.grown(base, "pgscan_kswapd");
    row.kswapd_stolen = end.grown(base, "pgsteal_kswapd");
    row.refault_anon = end.grown(base, "workingset_refault_anon");
    row.refault_file = end.grown(base, "workingset_refault_file");
    row.compact_stall = end.grown(base, "compact_stall");
    row.compact_fail = end.grown(base, "compact_fail");
    row.compact_success = end.grown(base, "compact_success");
    row.thp_fault_alloc = end.grown(base, "thp_fault_alloc");
    row.thp_fault_fallback = end.grown(base, "thp_fault_fallback");
    row.thp_fault_fallback_charge = end.grown(base, "thp_fault_fallback_charge");
    row.thp_split = end.grown(base, "thp_split_page");
    row.oom_kills = end.grown(base, "oom_kill");
}

fn pressures(base: &HostReading, end: &HostReading, row: &mut HostMemoryRow) {
    let memory = end.memory.since(&base.memory);
    row.psi_memory_some_ns = memory.some_ns.map(int);
    row.psi_memory_full_ns = memory.full_ns.map(int);
    let io = end.io.since(&base.io);
    row.psi_io_some_ns = io.some_ns.map(int);
    row.psi_io_full_ns = io.full_ns.map(int);
    // "full" of the host's CPUs is always 0 (Documentation/accounting/psi.rst).
    row.psi_cpu_some_ns = end.cpu.since(&base.cpu).some_ns.map(int);
}

/// A file's text, empty where it cannot be read.
fn text(path: &Path) -> String {
    files::text(path).unwrap_or_default()
}

#[cfg(test)]
mod tests;

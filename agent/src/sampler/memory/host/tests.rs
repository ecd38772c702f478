use std::fs;

use super::*;

/// `/proc/meminfo` of a Debian host with hugetlb pages, swap and zswap, cut.
const MEMINFO_TEXT: &str = "\
MemTotal:       24684084 kB
MemFree:        17225072 kB
MemAvailable:   24157540 kB
Buffers:           21900 kB
Cached:          6697188 kB
SwapCached:            0 kB
SwapTotal:       1048576 kB
SwapFree:         524288 kB
Zswap:              1000 kB
Zswapped:           4000 kB
Dirty:           1226940 kB
Writeback:             8 kB
AnonPages:         21336 kB
Shmem:              8872 kB
Slab:             602812 kB
AnonHugePages:      2048 kB
HugePages_Total:       4
HugePages_Free:        1
Hugepagesize:       2048 kB
";

struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.write("proc/meminfo", MEMINFO_TEXT);
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn files(&self) -> HostFiles {
        HostFiles::new(&self.0.path().join("proc"), &self.0.path().join("sys"))
    }
}

#[test]
fn amounts_of_meminfo() {
    let fake = Fake::new();
    let reading = fake.files().read();
    let row = fake.files().row(&reading, &reading);
    assert_eq!(row.total_bytes, Some(24_684_084 * 1024));
    assert_eq!(row.cached_bytes, Some((6_697_188 + 21_900) * 1024));
    assert_eq!(row.swap_used_bytes, Some(512 << 20));
    assert_eq!(
        (row.hugetlb_total_bytes, row.hugetlb_free_bytes),
        (Some(8 << 20), Some(2 << 20))
    );
    assert_eq!(row.zswap_stored_bytes, Some(4_096_000));
    // Nothing of this host's is there: unavailable, not 0.
    assert_eq!(
        (row.direct_reclaims, row.compact_stall, row.oom_kills),
        (None, None, None)
    );
    assert_eq!(
        (row.psi_memory_some_ns, row.ksm_sharing_bytes),
        (None, None)
    );
    assert_eq!(row.zram_stored_bytes, None);
}

#[test]
fn a_window_is_the_difference_of_two_readings() {
    let fake = Fake::new();
    let files = fake.files();
    let vmstat = |allocstall: u32, swapped: u32, fallback: u32| {
        format!(
            "pswpin 1\npswpout {swapped}\nallocstall_dma32 2\nallocstall_normal {allocstall}\ncompact_stall 7\nthp_fault_fallback {fallback}\noom_kill 1\n"
        )
    };
    fake.write("proc/vmstat", &vmstat(10, 100, 5));
    fake.write(
        "proc/pressure/memory",
        "some avg10=0.00 total=50\nfull avg10=0.00 total=10\n",
    );
    let base = files.read();
    fake.write("proc/vmstat", &vmstat(13, 102, 9));
    fake.write(
        "proc/pressure/memory",
        "some avg10=0.00 total=53\nfull avg10=0.00 total=11\n",
    );
    let row = files.row(&base, &files.read());
    assert_eq!(row.direct_reclaims, Some(3));
    assert_eq!(
        (row.swap_in_bytes, row.swap_out_bytes),
        (Some(0), Some(8192))
    );
    assert_eq!(
        (row.compact_stall, row.thp_fault_fallback),
        (Some(0), Some(4))
    );
    assert_eq!(
        (row.psi_memory_some_ns, row.psi_memory_full_ns),
        (Some(3_000), Some(1_000))
    );
    assert_eq!((row.zswap_out_bytes, row.psi_io_some_ns), (None, None));
}

#[test]
fn zram_counts_devices_in_use() {
    let fake = Fake::new();
    let files = fake.files();
    let zram = || {
        let reading = files.read();
        let row = files.row(&reading, &reading);
        (
            row.zram_stored_bytes,
            row.zram_compressed_bytes,
            row.zram_used_bytes,
        )
    };
    fake.write("sys/block/zram0/disksize", "0\n");
    fake.write(
        "sys/block/zram0/mm_stat",
        "       0        0        0        0        0        0        0        0        0\n",
    );
    assert_eq!(zram(), (None, None, None), "none is in use");
    fake.write("sys/block/zram1/disksize", "536870912\n");
    fake.write(
        "sys/block/zram1/mm_stat",
        " 8192 74 12288 0 12288 0 0 0 0\n",
    );
    fake.write("sys/block/zram2/disksize", "536870912\n");
    fake.write("sys/block/zram2/mm_stat", " 4096 6 4096 0 4096 0 0 0 0\n");
    assert_eq!(zram(), (Some(12_288), Some(80), Some(16_384)));
}

#[test]
fn this_hosts_kernel_tells_all_that_every_kernel_tells() {
    let files = HostFiles::new("/proc".as_ref(), "/sys".as_ref());
    let base = files.read();
    let row = files.row(&base, &files.read());
    assert!(row.window_ns > 0);
    let all = [
        row.total_bytes,
        row.available_bytes,
        row.anon_bytes,
        row.swap_used_bytes,
        row.direct_reclaims,
        row.direct_scanned,
        row.kswapd_stolen,
        row.refault_file,
        row.swap_out_bytes,
        row.oom_kills,
    ];
    assert!(all.iter().all(|f| f.is_some_and(|n| n >= 0)), "{row:?}");
}

use std::fs;

use super::*;

/// `memory.stat` of a libvirt guest on Debian 12 (kernel 6.1), cut.
const STAT_61: &str = "\
anon 1090113536
file 4096000
shmem 0
anon_thp 1067450368
pgscan 500
pgsteal 400
pgscan_kswapd 100
pgscan_direct 400
pgsteal_kswapd 90
pgsteal_direct 310
pgmajfault 12
workingset_refault_anon 7
workingset_refault_file 9
thp_fault_alloc 509
";

fn group(version: Version) -> (tempfile::TempDir, Own) {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("slice/vm");
    fs::create_dir_all(&inner).unwrap();
    let own = Own {
        memory: Some((inner.clone(), version)),
        name: Some("/slice/vm".into()),
        pressure: Some(inner),
    };
    (dir, own)
}

fn write(own: &Own, file: &str, text: &str) {
    let dir = &own.memory.as_ref().unwrap().0;
    fs::write(dir.join(file), text).unwrap();
}

fn row(base: &CgroupReading, end: &CgroupReading, own: &Own) -> VmMemoryRow {
    let mut row = VmMemoryRow::default();
    end.fill(base, own, &mut row);
    row
}

#[test]
fn version_2() {
    let (dir, own) = group(Version::V2);
    write(&own, "memory.stat", STAT_61);
    write(
        &own,
        "memory.events",
        "low 0\nhigh 2\nmax 10\noom 0\noom_kill 0\noom_group_kill 0\n",
    );
    write(&own, "memory.max", "2147483648\n");
    write(&own, "memory.high", "max\n");
    write(&own, "memory.current", "1100000000\n");
    write(
        &own,
        "memory.pressure",
        "some avg10=0.00 total=10\nfull avg10=0.00 total=5\n",
    );
    fs::write(dir.path().join("slice/memory.max"), "1073741824\n").unwrap();
    let base = CgroupReading::read(&own);
    write(
        &own,
        "memory.events",
        "low 0\nhigh 3\nmax 14\noom 1\noom_kill 1\noom_group_kill 0\n",
    );
    write(
        &own,
        "memory.stat",
        &STAT_61.replace("pgscan_direct 400", "pgscan_direct 450"),
    );
    write(
        &own,
        "memory.pressure",
        "some avg10=0.00 total=12\nfull avg10=0.00 total=6\n",
    );
    let r = row(&base, &CgroupReading::read(&own), &own);
    assert_eq!(
        (r.limit_hits, r.high_hits, r.oom_kills),
        (Some(4), Some(1), Some(1))
    );
    assert_eq!(
        r.limit_bytes,
        Some(1 << 30),
        "the limit above is the smaller one"
    );
    assert_eq!((r.high_bytes, r.cgroup_version), (None, Some(2)));
    assert_eq!(
        (r.direct_scanned, r.scanned, r.anon_huge_bytes),
        (Some(50), Some(0), Some(1_067_450_368))
    );
    assert_eq!(
        (r.psi_memory_some_ns, r.psi_memory_full_ns),
        (Some(2_000), Some(1_000))
    );
    // 6.1 counts no swap in a group, and this one has no PSI of IO.
    assert_eq!(
        (r.swap_in_bytes, r.swap_bytes, r.psi_io_some_ns),
        (None, None, None)
    );
}

#[test]
fn version_1() {
    let (_dir, own) = group(Version::V1);
    let stat = "cache 1\nrss 2\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 8192\ntotal_rss 4096\ntotal_rss_huge 0\ntotal_shmem 0\ntotal_swap 12288\ntotal_pgmajfault 3\n";
    write(&own, "memory.stat", stat);
    write(&own, "memory.failcnt", "7\n");
    write(
        &own,
        "memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    );
    write(&own, "memory.usage_in_bytes", "20480\n");
    let base = CgroupReading::read(&own);
    write(&own, "memory.failcnt", "9\n");
    let r = row(&base, &CgroupReading::read(&own), &own);
    assert_eq!(
        (r.limit_hits, r.oom_kills, r.high_hits),
        (Some(2), Some(0), None)
    );
    assert_eq!((r.limit_bytes, r.used_bytes), (None, Some(20_480)));
    assert_eq!(
        (r.anon_bytes, r.file_bytes, r.swap_bytes),
        (Some(4096), Some(8192), Some(12_288))
    );
    assert_eq!(
        (r.scanned, r.major_faults, r.cgroup_version),
        (None, Some(0), Some(1))
    );
    write(&own, "memory.stat", "hierarchical_memory_limit 67108864\n");
    let r = row(&base, &CgroupReading::read(&own), &own);
    assert_eq!((r.limit_bytes, r.anon_bytes), (Some(64 << 20), None));
}

#[test]
fn without_a_group_there_are_no_figures() {
    let reading = CgroupReading::read(&Own::default());
    assert_eq!(
        row(&reading, &reading, &Own::default()),
        VmMemoryRow::default()
    );
}

#[test]
fn this_process() {
    let mut row = VmMemoryRow::default();
    Process::read("/proc".as_ref(), std::process::id()).fill(&mut row);
    assert!(row.resident_bytes.unwrap() > 1 << 20, "{row:?}");
    assert!(row.resident_anon_bytes.is_some() && row.swapped_bytes.is_some());
    let mut gone = VmMemoryRow::default();
    Process::read("/proc".as_ref(), 0).fill(&mut gone);
    assert_eq!(gone, VmMemoryRow::default());
}

//! A disk that takes 20 ms for each request.

use headroom_vmlab::message::DiskReads;
use headroom_vmlab::{Run, Scenario, Series};
use serde_json::Value;

use super::rows::{int, only, total};

/// Bounds of histogram buckets around the disk's time, ns: the first holds
/// 16.8 to 21.0 ms, the last one begins at 29.4 ms and ends at the other bound.
const SERVICE: (u64, u64) = (16_777_216, 33_554_432);

pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Block) else {
        return;
    };
    let run = only(&report);
    let truth: DiskReads = report.truth("disk").unwrap();
    println!("{truth:?}");
    // The truths agree with each other: one guest read is one request.
    assert!(truth.guest_reads > 20, "{truth:?}");
    assert_eq!(truth.issued, truth.guest_reads);
    assert_eq!(truth.completed, truth.guest_reads);
    assert_eq!(truth.reads, truth.guest_reads);
    let latency_ns = truth.read_ms * 1_000_000 / truth.reads;
    // TCG adds 10 to 20 ms to a request, and more on a busy machine.
    assert!(latency_ns >= truth.latency_ns * 95 / 100, "{latency_ns} ns");
    assert!(run.rows("vms").count() >= 5);
    disk(run, &truth, i64::try_from(latency_ns).unwrap());
    queue(run, &truth);
    for row in run.rows("block_drops") {
        for lost in ["open_full", "stats_full", "unseen", "vanished", "skipped"] {
            assert_eq!(int(row, lost), 0, "{lost} of {row}");
        }
    }
}

/// Each read is a request of the VM, of the time that the kernel's own count
/// tells.
fn disk(run: &Run, truth: &DiskReads, latency_ns: i64) {
    let rows: Vec<_> = run
        .rows("vm_disks")
        .filter(|r| r["device"] == "vda" && r["op"] == "read")
        .collect();
    assert!(rows.iter().all(|r| r["vm_name"] == "vm1"), "{rows:?}");
    assert!(rows.iter().all(|r| r["major_minor"] == *truth.device));
    let reads = i64::try_from(truth.guest_reads).unwrap();
    assert_eq!(total(&rows, "requests"), reads);
    assert_eq!(total(&rows, "bytes"), reads * 512);
    assert_eq!(total(&rows, "errors"), 0);
    // diskstats cuts each request's time to ms.
    let queue_ns = total(&rows, "queue_ns");
    let service_ns = total(&rows, "service_ns");
    let await_ns = (queue_ns + service_ns) / reads;
    println!("await {await_ns} ns, by diskstats {latency_ns} ns");
    assert!(
        (await_ns - latency_ns).abs() < latency_ns / 10,
        "{await_ns} ns"
    );
    for row in rows.iter().filter(|r| int(r, "requests") > 0) {
        // The disk never answers sooner.
        assert!(row["await_ns"].as_f64() >= Some(19e6), "{row}");
    }
    let buckets: Vec<_> = rows.iter().flat_map(|r| buckets(r)).collect();
    let count = |lower: u64, end: u64| -> u64 {
        let within = buckets.iter().filter(|(b, _)| (lower..end).contains(b));
        within.map(|(_, n)| n).sum()
    };
    assert_eq!(count(0, u64::MAX), truth.guest_reads);
    assert_eq!(count(0, SERVICE.0), 0, "{buckets:?}");
    // A mean below 26 ms with none below 20 leaves less than half above 33.
    if latency_ns < 26_000_000 {
        let near = count(SERVICE.0, SERVICE.1);
        assert!(
            near * 2 > truth.guest_reads,
            "{near} of {}",
            truth.guest_reads
        );
    }
}

/// Lower bounds and counts of a row's service times.
fn buckets(row: &Value) -> Vec<(u64, u64)> {
    let counts = row["service_hist"]["counts"].clone();
    serde_json::from_value(counts).unwrap_or_else(|e| panic!("{e} in {row}"))
}

/// Each read is a kick of the iothread, and each kick woke it or did not. A
/// kick and its outcome may be in two windows, not in none.
fn queue(run: &Run, truth: &DiskReads) {
    let rows: Vec<_> = run
        .rows("vm_queues")
        .filter(|r| r["backend"] == "io0")
        .collect();
    assert!(
        rows.iter()
            .all(|r| r["vm_name"] == "vm1" && r["kind"] == "iothread")
    );
    let [kicks, wakes, polled] = ["kicks", "wakes", "polled"].map(|c| total(&rows, c));
    println!("{kicks} kicks: {wakes} woke, {polled} polled");
    // Kicks before the first one that woke it are not known to be its.
    let reads = i64::try_from(truth.guest_reads).unwrap();
    assert!((kicks - reads).abs() <= 2, "{kicks} kicks, {reads} reads");
    assert_eq!(wakes + polled, kicks);
    assert!(wakes > 0, "{rows:?}");
    let pickups = total(&rows, "pickups");
    assert!(
        (wakes - pickups).abs() <= 1,
        "{wakes} wakes, {pickups} pickups"
    );
}

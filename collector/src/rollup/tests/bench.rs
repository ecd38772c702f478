//! What rolling up an hour costs; printed, not asserted.

use std::io::Write as _;

use headroom_core::metric::TABLES;
use headroom_core::rollup::stored;

use super::{HOUR, SECOND, open, roll, send, vm};
use crate::store::{DeltaLog, Store};
use crate::tests::harness::T0;

/// 500 VMs when `HEADROOM_BENCH` is set, else 20: the sum is checked always.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_many_vms() {
    let many = std::env::var_os("HEADROOM_BENCH").is_some();
    let vms = if many { 500 } else { 20 };
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for (seq, part) in (1..).zip(0..6i64) {
        let at = (1..=60).map(|n| T0 + (part * 60 + n) * 10 * SECOND);
        let rows = at.flat_map(|ts| (0..vms).map(move |n| vm("h1", &format!("vm-{n:04}"), ts)));
        send(&mut opened, seq, &rows.collect::<Vec<_>>());
        opened.flush_and_trim().await.unwrap();
    }
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (memory, began, cpu) = (resident("VmRSS"), std::time::Instant::now(), cpu_s());
    assert!(roll(&opened, T0 + HOUR + 15 * 60 * SECOND).await >= 4);
    let (seconds, peak) = (began.elapsed().as_secs_f64(), resident("VmHWM"));
    let (rows, cpu) = (vms * 360, cpu_s() - cpu);
    let windows = opened.answer("SELECT sum(windows) FROM vms_1h").await;
    assert!(windows.contains(&format!("| {rows} ")), "{windows}");
    let (memory, peak) = (memory >> 10, peak >> 10);
    let _ = writeln!(
        std::io::stderr(),
        "roll-up of an hour of {vms} VMs ({rows} rows) to 1 m, 5 m, 1 h and stays: \
         {seconds:.2} s ({cpu:.2} s of CPU), resident {memory} MiB before, {peak} MiB at the most"
    );
}

/// CPU time of the process so far, tests beside this one included.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.map(|t| t.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// KiB.
fn resident(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A start with the tables that were sent, and with all roll-ups too.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_every_table() {
    let dir = tempfile::tempdir().unwrap();
    let open = || async {
        let began = std::time::Instant::now();
        drop(Store::open(dir.path()).await.unwrap());
        began.elapsed().as_secs_f64()
    };
    let first = open().await;
    let sent = open().await;
    for table in stored() {
        let dir = dir.path().join("tables").join(table.name);
        DeltaLog::open(table, &dir).await.unwrap();
    }
    let all = open().await;
    let _ = writeln!(
        std::io::stderr(),
        "first start {first:.2} s; start with {} tables {sent:.2} s, with {} {all:.2} s",
        TABLES.len(),
        stored().len()
    );
    assert_eq!(
        Store::open(dir.path())
            .await
            .unwrap()
            .snapshot()
            .tables
            .len(),
        stored().len()
    );
}

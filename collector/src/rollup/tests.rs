//! Roll-ups against what is computed anew from the rows they were made of.

use std::path::Path;

use headroom_core::batch::Chunk;
use headroom_core::hist::Hist;
use headroom_core::rows::{HostRow, InventoryRow, VmRow};

use super::*;
use crate::store::tests::{END_AT, Opened, open, versions::by_duckdb};
use crate::store::{Keep, Step};
use crate::tests::harness::{T0, files, wire};

mod bench;
mod folds;
mod placement;
mod retention;

pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3600 * SECOND;
/// Every hour and day of the rows is over then.
pub const LATER: i64 = T0 + 72 * HOUR;

/// A window of a VM; figures depend on the VM and the time.
pub fn vm(host: &str, id: &str, ts: i64) -> VmRow {
    let turn = (ts / SECOND + i64::try_from(id.len()).unwrap()) % 977;
    let mut hist = Hist::default();
    hist.record(1000 * turn.unsigned_abs() + 1, turn.unsigned_abs() % 7 + 1);
    VmRow {
        ts,
        host: host.into(),
        vm_id: id.into(),
        vm_name: format!("name of {id}"),
        vcpus: 2 + turn % 2,
        window_ns: 10_000_000_000,
        run_ns: 3_000_000 * turn,
        ready_ns: 1_000_000 * turn,
        ready_wake_ns: (turn % 3 != 0).then_some(turn),
        ready_ratio: 0.5,
        #[expect(clippy::cast_precision_loss, reason = "below 977")]
        ready_max_ratio: turn as f64 / 1000.0,
        ready_hist: (turn % 5 != 0).then(|| hist.encode()),
        memory_bytes: Some(4 << 30),
        tenant: Some(if id.ends_with('a') { "acme" } else { "other" }.into()),
        platform: "qemu".into(),
        source: "tp_btf".into(),
        ..VmRow::default()
    }
}

pub fn send(opened: &mut Opened, seq: u64, rows: &[VmRow]) {
    opened.push(&wire("a", 1, seq, vec![Chunk::of(rows)]));
}

pub async fn roll(opened: &Opened, now: i64) -> u64 {
    Roller::default()
        .roll_all(&opened.store, now, &|| false)
        .await
}

/// The steps of a length as computed from `vms`, and as rolled up.
fn both(table: &str, seconds: i64) -> (String, String) {
    let raw = format!(
        "SELECT date_bin(INTERVAL '{seconds} seconds', ts - INTERVAL '1 microsecond', to_timestamp(0)) \
           + INTERVAL '{seconds} seconds' AS ts, host, vm_id, count(*) AS windows, \
         sum(window_ns) AS window_ns, sum(run_ns) AS run_ns, sum(ready_wake_ns) AS wake, \
         sum(window_ns * vcpus) AS provisioned_ns, \
         CAST(sum(ready_ns) AS DOUBLE) / sum(window_ns * vcpus) AS ready_ratio, \
         max(ready_max_ratio) AS worst, encode(hist_merge(ready_hist), 'hex') AS hist, \
         last_value(vcpus ORDER BY ts) AS vcpus \
         FROM vms GROUP BY 1, 2, 3 ORDER BY 3, 1, 2"
    );
    let rolled = format!(
        "SELECT ts, host, vm_id, windows, window_ns, run_ns, ready_wake_ns AS wake, provisioned_ns, \
         ready_ratio, ready_max_ratio AS worst, encode(ready_hist, 'hex') AS hist, vcpus \
         FROM {table} ORDER BY 3, 1, 2"
    );
    (raw, rolled)
}

pub const STEPS: [(&str, i64); 4] = [
    ("vms_1m", 60),
    ("vms_5m", 300),
    ("vms_1h", 3600),
    ("vms_1d", 86_400),
];

pub async fn assert_true_to_the_rows(opened: &Opened, why: &str) {
    for (table, seconds) in STEPS {
        let (raw, rolled) = both(table, seconds);
        let (raw, rolled) = (opened.answer(&raw).await, opened.answer(&rolled).await);
        assert_eq!(
            without_types(&raw),
            without_types(&rolled),
            "{table}: {why}"
        );
    }
}

/// The two times differ in how they print.
fn without_types(table: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = table.lines().filter(|l| !l.starts_with('+'));
    lines
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
        .replace("Z", "")
}

/// Windows of two VMs over parts of two days, with gaps.
fn some_rows() -> Vec<VmRow> {
    let at = (0..360).map(|n| T0 + 22 * HOUR + n * 30 * SECOND);
    let at = at.filter(|ts| (ts / HOUR + ts / SECOND) % 11 != 0);
    at.flat_map(|ts| [vm("h1", "vm-a", ts), vm("h2", "vm-bb", ts)])
        .collect()
}

async fn filled(dir: &Path) -> Opened {
    let mut opened = open(dir).await;
    for (seq, rows) in (1..).zip(some_rows().chunks(300)) {
        send(&mut opened, seq, rows);
        opened.flush_and_trim().await.unwrap();
    }
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_up_is_what_its_rows_say() {
    let dir = tempfile::tempdir().unwrap();
    let opened = filled(dir.path()).await;
    // 22:00 itself belongs to the hour before; 23:00 is over, the next is not.
    let now = T0 + 24 * HOUR + 15 * 60 * SECOND;
    assert!(roll(&opened, now - 1).await > 0);
    let last = "SELECT CAST(max(ts) AS VARCHAR) FROM vms_1m";
    assert!(opened.answer(last).await.contains("2026-01-01T23:00:00"));
    roll(&opened, LATER).await;
    assert_eq!(roll(&opened, LATER).await, 0, "nothing is left to do");
    assert_true_to_the_rows(&opened, "at first").await;
    // Merged files hold the same windows, so nothing is made again.
    assert!(merger::merge_all(&opened.store, LATER, &|| false).await > 0);
    assert_eq!(roll(&opened, LATER).await, 0, "after merges");
    drop(opened);
    let opened = open(dir.path()).await;
    assert_eq!(roll(&opened, LATER).await, 0, "after a restart");
    assert_true_to_the_rows(&opened, "after a restart").await;
    let windows = "SELECT sum(windows) AS n FROM vms_1h";
    if let Some(theirs) = by_duckdb(dir.path(), windows) {
        assert_eq!(
            theirs["n"].to_string().trim_matches('"'),
            some_rows().len().to_string()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_change_the_steps_they_belong_to_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = filled(dir.path()).await;
    roll(&opened, LATER).await;
    let index = |name: &str| stored().iter().position(|t| t.name == name).unwrap();
    let paths = |opened: &Opened, name: &str| -> BTreeSet<String> {
        let files = &opened.store.snapshot().tables[index(name)].files;
        files.iter().map(|f| f.path.clone()).collect()
    };
    let before = paths(&opened, "vms_1m");
    // 20 h before the newest row: an hour of its own.
    let late: Vec<VmRow> = (1..=7)
        .map(|n| vm("h1", "vm-a", T0 + 5 * HOUR + n * SECOND))
        .collect();
    send(&mut opened, 50, &late);
    opened.flush_and_trim().await.unwrap();
    // Four tables of vms and the stays.
    assert_eq!(roll(&opened, LATER).await, 5);
    let after = paths(&opened, "vms_1m");
    assert!(
        before.is_subset(&after) && after.len() == before.len() + 1,
        "{after:?}"
    );
    assert_true_to_the_rows(&opened, "late, in an hour of its own").await;
    // Into an hour that is rolled up already, and merged with others.
    merger::merge_all(&opened.store, LATER, &|| false).await;
    let late: Vec<VmRow> = (1..=7)
        .map(|n| vm("h1", "vm-c", T0 + 23 * HOUR + n * SECOND))
        .collect();
    send(&mut opened, 51, &late);
    opened.flush_and_trim().await.unwrap();
    assert_eq!(roll(&opened, LATER).await, 5);
    assert_true_to_the_rows(&opened, "late, in a merged hour").await;
    assert_eq!(roll(&opened, LATER).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_of_a_roll_up_loses_or_doubles_a_window_when_it_is_the_last() {
    let ends = [
        (Step::Written, false),
        (Step::Named, true),
        (Step::Committed, false),
        (Step::Committed, true),
    ];
    for (step, late) in ends {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = filled(dir.path()).await;
        if late {
            roll(&opened, LATER).await;
            send(
                &mut opened,
                60,
                &[vm("h1", "vm-a", T0 + 23 * HOUR + SECOND)],
            );
            opened.flush_and_trim().await.unwrap();
        }
        let end = || END_AT.lock().unwrap();
        end().push((dir.path().to_path_buf(), step));
        assert_eq!(roll(&opened, LATER).await, 0, "{step:?}");
        end().retain(|(root, _)| root != dir.path());
        drop(opened);
        let opened = open(dir.path()).await;
        roll(&opened, LATER).await;
        assert_true_to_the_rows(&opened, &format!("{step:?}, late: {late}")).await;
        let tmp = files(&dir.path().join("tables"), ".tmp");
        assert!(tmp.is_empty(), "{step:?}: {tmp:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_roll_ups_are_grouped_by_whom_they_belong_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = filled(dir.path()).await;
    let who = |id: &str, region: &str| InventoryRow {
        ts: T0 + 22 * HOUR,
        host: "h1".into(),
        vm_id: id.into(),
        tenant: Some(format!("tenant of {id}")),
        project: Some("blue".into()),
        vm_type: Some("m1.small".into()),
        region: Some(region.into()),
        ..InventoryRow::default()
    };
    let rows = [who("vm-a", "north"), who("vm-bb", "south")];
    opened.push(&wire("a", 1, 70, vec![Chunk::of(&rows)]));
    roll(&opened, LATER).await;
    for (table, windows) in [
        ("vms", "count(*)"),
        ("vms_1h", "sum(windows)"),
        ("vms_1d", "sum(windows)"),
    ] {
        for (by, groups) in [("tenant", 2), ("project", 1), ("vm_type", 1), ("region", 2)] {
            let sql = format!(
                "SELECT count(*) AS groups, sum(windows) AS windows FROM ( \
                 SELECT d.{by}, {windows} AS windows FROM {table} v \
                 JOIN vm_dimensions d ON d.vm_id = v.vm_id GROUP BY d.{by})"
            );
            let answer = without_types(&opened.answer(&sql).await);
            let wanted = format!("| {groups} | {} |", some_rows().len());
            assert!(answer.contains(&wanted), "{table} by {by}: {answer}");
        }
    }
    // What the rows themselves tell needs no join.
    let own = "SELECT tenant, sum(windows) AS n FROM vms_1h GROUP BY tenant ORDER BY tenant";
    let answer = opened.answer(own).await;
    assert!(
        answer.contains("acme") && answer.contains("other"),
        "{answer}"
    );
    let units =
        "SELECT count(*) AS n FROM column_comments WHERE table_name = 'vms_1d' AND unit = 'ns'";
    assert!(!opened.answer(units).await.contains("| 0 "));
}

/// For a test that needs a host's rows.
pub fn host(name: &str, ts: i64) -> HostRow {
    HostRow {
        ts,
        host: name.into(),
        window_ns: 10_000_000_000,
        source: "tp_btf".into(),
        ..HostRow::default()
    }
}

pub fn days(n: u64) -> std::time::Duration {
    std::time::Duration::from_secs(n * 86_400)
}

pub const fn keep(raw: std::time::Duration, rollups: std::time::Duration) -> Keep {
    Keep { raw, rollups }
}

//! What is let go of, by a clock that the test turns.

use headroom_core::batch::Chunk;
use headroom_core::rows::{InventoryRow, VMS};

use super::{END_AT, HOUR, LATER, Opened, Roller, SECOND, Step};
use super::{by_duckdb, days, files, filled, keep, open, roll, send, stored, vm, wire};
use crate::tests::harness::T0;

const DAY: i64 = 24 * HOUR;

fn live(opened: &Opened, name: &str) -> usize {
    let at = stored().iter().position(|t| t.name == name).unwrap();
    opened.store.snapshot().tables[at].files.len()
}

async fn retire(opened: &Opened, now: i64) -> u64 {
    Roller::default().retire_all(&opened.store, now).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_when_all_of_their_file_are_too_old_and_rolled_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for (seq, day) in (1..).zip(0..4) {
        send(&mut opened, seq, &[vm("h1", "vm-a", T0 + day * DAY + HOUR)]);
        opened.flush_and_trim().await.unwrap();
    }
    let now = T0 + 8 * DAY + HOUR + SECOND;
    assert_eq!(retire(&opened, now).await, 0, "nothing is rolled up yet");
    roll(&opened, now).await;
    // The row of the first day is exactly seven days old: it stays.
    assert_eq!(retire(&opened, T0 + 7 * DAY + HOUR).await, 0);
    assert_eq!(retire(&opened, now).await, 2);
    assert_eq!((live(&opened, "vms"), live(&opened, "vms_1h")), (2, 4));
    let counts =
        "SELECT (SELECT count(*) FROM vms) AS rows, (SELECT sum(windows) FROM vms_1d) AS days";
    let answer = opened.answer(counts).await;
    assert!(answer.contains("| 2    | 4    |"), "{answer}");
    // What is gone from the source is not taken from the roll-up.
    assert_eq!(roll(&opened, now).await, 0);
    let on_disk = |name: &str| files(&dir.path().join("tables").join(name), ".parquet").len();
    assert_eq!(on_disk("vms"), 4, "deleted two hours later");
    let table = crate::schema::index(&VMS);
    opened
        .store
        .delete_replaced(table, std::time::Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(on_disk("vms"), 2);
    drop(opened);
    let opened = open(dir.path()).await;
    assert_eq!(live(&opened, "vms"), 2);
    assert!(retire(&opened, T0 + 370 * DAY).await > 0);
    assert_eq!((live(&opened, "vms"), live(&opened, "vms_1h")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_within_retention_leaves_all_or_nothing() {
    for step in [Step::Written, Step::Named, Step::Committed] {
        let dir = tempfile::tempdir().unwrap();
        let opened = filled(dir.path()).await;
        roll(&opened, LATER).await;
        let (before, end) = (live(&opened, "vms"), || END_AT.lock().unwrap());
        end().push((dir.path().to_path_buf(), step));
        retire(&opened, T0 + 30 * DAY).await;
        end().retain(|(root, _)| root != dir.path());
        drop(opened);
        let opened = open(dir.path()).await;
        let left = live(&opened, "vms");
        let wanted = if step == Step::Committed { 0 } else { before };
        assert_eq!(left, wanted, "{step:?}");
        retire(&opened, T0 + 30 * DAY).await;
        assert_eq!(live(&opened, "vms"), 0, "{step:?}");
        assert!(live(&opened, "vms_1h") > 0, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tables_take_is_told_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = filled(dir.path()).await;
    let rows = [InventoryRow {
        ts: T0,
        ..InventoryRow::default()
    }];
    opened.push(&wire("a", 1, 90, vec![Chunk::of(&rows)]));
    opened.flush_and_trim().await.unwrap();
    let of = |sane: &str, table: &str| {
        format!("SELECT {sane} AS sane FROM store_usage WHERE table_name = '{table}'")
    };
    let sane = "predicted_bytes > bytes AND rows > 0 AND keep_s = 604800 AND newest > oldest";
    let answer = opened.answer(&of(sane, "vms")).await;
    assert!(answer.contains("true"), "{answer}");
    // One row says nothing of a day.
    let none = "bytes > 0 AND bytes_per_day IS NULL AND keep_s = 31536000";
    let answer = opened.answer(&of(none, "inventory")).await;
    assert!(answer.contains("true"), "{answer}");
    assert_eq!(keep(days(2), days(30)).of(&VMS), days(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_table_does_not_grow_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    let table = crate::schema::index(&VMS);
    let log = dir.path().join("tables/vms/_delta_log");
    let at_once = std::time::Duration::ZERO;
    for n in 1..=40i64 {
        send(
            &mut opened,
            n.unsigned_abs(),
            &[vm("h1", "vm-a", T0 + n * 10 * SECOND)],
        );
        opened.flush_and_trim().await.unwrap();
        opened.store.shorten(table, at_once).await.unwrap();
    }
    let entries = files(&log, ".json").len();
    assert!(entries < 20, "{entries} entries of 41 commits");
    let sum = "SELECT count(*) AS n, sum(run_ns) AS run FROM vms";
    let before = opened.answer(sum).await;
    assert!(before.contains("| 40 "), "{before}");
    drop(opened);
    let opened = open(dir.path()).await;
    assert_eq!(opened.answer(sum).await, before);
    if let Some(theirs) = by_duckdb(dir.path(), "SELECT count(*) AS n FROM vms") {
        assert_eq!(theirs["n"], 40);
    }
    drop(opened);
    // A checkpoint that a loss of power left empty is no obstacle.
    let newest = files(&log, ".json").pop().unwrap();
    std::fs::write(newest.with_extension("checkpoint.parquet"), b"").unwrap();
    assert_eq!(open(dir.path()).await.answer(sum).await, before);
}

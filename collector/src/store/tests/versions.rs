//! Tables that an older version of headroom made.

use std::path::Path;

use headroom_core::metric::Table;
use headroom_tests::require::{Need, have};

use super::merges::merge_all;
use super::open;
use crate::ingest::convert;
use crate::store::parquet::NewFile;
use crate::store::{Bounds, DeltaLog, Store, TableLog as _};
use crate::tests::harness::{batch, bytes};

/// The table as a version of headroom made it that did not have a column.
async fn table_without(dir: &Path, column: &str, rows: &arrow::array::RecordBatch) {
    let now = &headroom_core::rows::VCPUS;
    let columns = now.columns.iter().copied().filter(|c| c.name != column);
    let columns: Vec<_> = columns.collect();
    let then: &'static Table = Box::leak(Box::new(Table {
        columns: Box::leak(columns.into_boxed_slice()),
        ..*now
    }));
    let log = DeltaLog::open(then, dir).await.unwrap();
    let kept: Vec<usize> = (0..now.columns.len())
        .filter(|i| now.columns[*i].name != column)
        .collect();
    let rows = rows.project(&kept).unwrap();
    let path = "date=2026-01-01/part-old.parquet";
    std::fs::create_dir_all(dir.join("date=2026-01-01")).unwrap();
    let file = std::fs::File::create(dir.join(path)).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let file = NewFile::in_place(dir, path, Bounds::of(then, &rows));
    log.append(&[file], 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_older_version_gets_the_new_columns() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("tables/vcpus");
    let prepared = convert::wire(bytes(&batch("a", 1, 1, 3))).unwrap();
    let (_, rows) = &prepared.chunks[0];
    table_without(&table, "ready_hist", rows).await;
    let mut opened = open(dir.path()).await;
    opened.push(&batch("a", 1, 2, 3));
    let known =
        "SELECT count(*) AS rows, count(ready_hist) AS hists, sum(run_ns) AS run FROM vcpus";
    let first = opened.answer(known).await;
    assert!(first.contains("| 6    | 3     |"), "{first}");
    opened.flush_and_trim().await.unwrap();
    assert_eq!(opened.answer(known).await, first);
    // Both kinds of files become one.
    assert!(merge_all(&opened).await > 0);
    assert_eq!(opened.answer(known).await, first);
    drop(opened);
    assert_eq!(open(dir.path()).await.answer(known).await, first);
    if let Some(theirs) = by_duckdb(dir.path(), known) {
        assert_eq!(
            (theirs["rows"].as_i64(), theirs["hists"].as_i64()),
            (Some(6), Some(3))
        );
    }
}

/// The one row of an answer by DuckDB's own reader of Delta tables; `None`
/// where it is not installed.
pub fn by_duckdb(data: &Path, sql: &str) -> Option<serde_json::Value> {
    if !have("duckdb", &[Need::Python]) {
        return None;
    }
    let script = headroom_tests::script("duck.py");
    let mut command = std::process::Command::new(headroom_tests::python());
    let text = headroom_tests::output(command.arg(script).arg(data).arg(sql)).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(rows[0].clone())
}

#[tokio::test]
async fn a_table_without_a_column_that_all_rows_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("tables/vcpus");
    let prepared = convert::wire(bytes(&batch("a", 1, 1, 3))).unwrap();
    table_without(&table, "run_ns", &prepared.chunks[0].1).await;
    let error = Store::open(dir.path()).await.err().unwrap().to_string();
    assert!(
        error.contains("vcpus") && error.contains("run_ns"),
        "{error}"
    );
}

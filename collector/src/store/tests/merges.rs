//! Files that were brought together.

use std::sync::Arc;

use headroom_core::metric::TABLES;

use super::{END_AT, Opened, open};
use crate::store::Step;
use crate::tests::harness::{T0, batch, files};

/// µs of a time at which every day of the rows is over.
const LONG_AFTER: i64 = T0 + 3 * 86_400_000_000;

pub async fn merge_all(opened: &Opened) -> u64 {
    crate::merger::merge_all(&opened.store, LONG_AFTER, &|| false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_files_hold_the_same_rows_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for seq in 1..=30 {
        opened.push(&batch("a", 1, seq, 3));
        opened.flush_and_trim().await.unwrap();
    }
    let vcpus = crate::schema::index(&headroom_core::rows::VCPUS);
    let files_of = |opened: &Opened| opened.store.snapshot().tables[vcpus].files.clone();
    assert_eq!(files_of(&opened).len(), 30);
    let before = opened.rows().await;
    assert!(merge_all(&opened).await >= 3);
    let merged = files_of(&opened);
    assert_eq!(merged.len(), 1, "{merged:?}");
    assert_eq!(merged[0].bounds.rows, 90);
    assert_eq!(opened.rows().await, before);
    // In the table's order, without a sort of the query's.
    let path = opened.store.table_dir(vcpus).join(&merged[0].path);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        std::fs::File::open(path).unwrap(),
    );
    let rows: Vec<_> = reader
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
    let by: Vec<_> = TABLES[vcpus]
        .sort
        .iter()
        .map(|name| arrow::compute::SortColumn {
            values: Arc::clone(rows.column_by_name(name).unwrap()),
            options: None,
        })
        .collect();
    let order = arrow::compute::lexsort_to_indices(&by, None).unwrap();
    let ordered = arrow::compute::take_record_batch(&rows, &order).unwrap();
    let sorted = |rows: &arrow::array::RecordBatch| {
        let columns = TABLES[vcpus].sort.iter();
        let columns: Vec<_> = columns
            .map(|name| rows.schema().index_of(name).unwrap())
            .collect();
        rows.project(&columns).unwrap()
    };
    assert_eq!(sorted(&ordered), sorted(&rows));
    drop(opened);
    let opened = open(dir.path()).await;
    assert_eq!(opened.rows().await, before, "after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_files_stay_for_those_who_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for seq in 1..=3 {
        opened.push(&batch("a", 1, seq, 3));
        opened.flush_and_trim().await.unwrap();
    }
    let vcpus = crate::schema::index(&headroom_core::rows::VCPUS);
    let count = || files(&dir.path().join("tables/vcpus"), ".parquet").len();
    let before = opened.rows().await;
    merge_all(&opened).await;
    assert_eq!(count(), 4);
    let hour = std::time::Duration::from_secs(3600);
    opened.store.delete_replaced(vcpus, hour).await.unwrap();
    drop(opened);
    let opened = open(dir.path()).await;
    assert_eq!(count(), 4);
    let at_once = std::time::Duration::ZERO;
    opened.store.delete_replaced(vcpus, at_once).await.unwrap();
    assert_eq!(count(), 1);
    assert_eq!(opened.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_of_a_merge_loses_or_doubles_a_row_when_it_is_the_last() {
    for step in [Step::Written, Step::Named, Step::Committed] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path()).await;
        for seq in 1..=3 {
            opened.push(&batch("a", 1, seq, 3));
            opened.flush_and_trim().await.unwrap();
        }
        let before = opened.rows().await;
        END_AT
            .lock()
            .unwrap()
            .push((dir.path().to_path_buf(), step));
        assert_eq!(merge_all(&opened).await, 0);
        END_AT
            .lock()
            .unwrap()
            .retain(|(root, _)| root != dir.path());
        assert_eq!(opened.rows().await, before, "{step:?}");
        drop(opened);
        let mut opened = open(dir.path()).await;
        assert_eq!(opened.rows().await, before, "{step:?}, after a restart");
        merge_all(&opened).await;
        opened.push(&batch("a", 1, 9, 3));
        let before = opened.rows().await;
        opened.flush_and_trim().await.unwrap();
        assert_eq!(opened.rows().await, before, "{step:?}, after a flush");
        let tmp = files(&dir.path().join("tables"), ".tmp");
        assert!(tmp.is_empty(), "{step:?}: {tmp:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_keeps_no_merge_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    for seq in 1..=4 {
        opened.push(&batch("a", 1, seq, 3));
        opened.flush_and_trim().await.unwrap();
    }
    let vcpus = crate::schema::index(&headroom_core::rows::VCPUS);
    let victim = opened.store.snapshot().tables[vcpus].files[1].path.clone();
    let path = opened.store.table_dir(vcpus).join(victim);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4..200].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    // One call to find the damaged one, one to merge the others.
    merge_all(&opened).await;
    merge_all(&opened).await;
    let left = opened.store.snapshot().tables[vcpus].files.clone();
    assert_eq!((left.len(), left[0].bounds.rows), (1, 9));
    assert_eq!(opened.store.quarantined(), 1);
}

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use headroom_core::metric::TABLES;

use super::{Bounds, Step, Store};
use crate::Error;
use crate::ingest::convert;
use crate::query::{Limits, QueryEngine};
use crate::tests::harness::{ALL_VCPUS, PATIENCE, T0, batch, bytes, files, number, vcpu_row, wire};
use crate::wal::{Layout, RealDisk, Wal};

mod merges;
pub mod versions;

/// Stores whose next flush ends at a step, as if the process had died there.
pub static END_AT: Mutex<Vec<(PathBuf, Step)>> = Mutex::new(Vec::new());

/// Called between the steps of a flush.
pub fn step(at: Step, dir: &Path) -> Result<(), Error> {
    // In a child process: die for real, without unwinding.
    if std::env::var("HEADROOM_TEST_ABORT_AT").is_ok_and(|s| s == format!("{at:?}")) {
        std::process::abort();
    }
    let ends = END_AT
        .lock()
        .unwrap()
        .iter()
        .any(|(root, step)| *step == at && dir.starts_with(root));
    if ends {
        Err(Error::Injected(at))
    } else {
        Ok(())
    }
}

pub const fn is_injected(error: &Error) -> bool {
    matches!(error, Error::Injected(_))
}

pub const STEPS: [Step; 6] = [
    Step::Sealed,
    Step::Written,
    Step::Named,
    Step::Committed,
    Step::Synced,
    Step::Swapped,
];

/// Store and log as the service opens them.
pub struct Opened {
    pub store: Arc<Store>,
    wal: Wal,
}

pub async fn open(dir: &Path) -> Opened {
    let store = Store::open(dir).await.unwrap();
    let layout = Layout {
        dir: dir.join("log"),
        quarantine: dir.join("quarantine"),
        segment_size: 1 << 20,
    };
    let (mut wal, _) = Wal::open(layout, Box::new(RealDisk), &mut |lsn, b| {
        store.append(vec![(lsn, convert::batch(b).unwrap().chunks)]);
    })
    .unwrap();
    wal.skip(store.committed().into_iter().max().unwrap());
    Opened {
        store: Arc::new(store),
        wal,
    }
}

impl Opened {
    pub fn push(&mut self, wire: &headroom_proto::v1::Batch) {
        let prepared = convert::wire(bytes(wire)).unwrap();
        let lsns = self.wal.append(&[prepared.entry]).unwrap();
        self.store.append(vec![(lsns[0], prepared.chunks)]);
    }

    pub async fn flush_and_trim(&mut self) -> Result<(), Error> {
        let (committed, outcome) = self.store.flush().await;
        self.wal.trim(committed).unwrap();
        outcome
    }

    pub async fn rows(&self) -> String {
        self.answer(ALL_VCPUS).await
    }

    pub async fn answer(&self, sql: &str) -> String {
        let engine = QueryEngine::new(
            Arc::clone(&self.store) as _,
            Limits {
                memory: 64 << 20,
                timeout: PATIENCE,
            },
        )
        .unwrap();
        let (_, rows) = engine.collect(sql).await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_of_a_flush_loses_or_doubles_a_row_when_it_is_the_last() {
    for step in STEPS {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path()).await;
        (1..=4).for_each(|seq| opened.push(&batch("a", 1, seq, 3)));
        opened.flush_and_trim().await.unwrap();
        (5..=9).for_each(|seq| opened.push(&batch("a", 1, seq, 3)));
        let before = opened.rows().await;
        END_AT
            .lock()
            .unwrap()
            .push((dir.path().to_path_buf(), step));
        opened.flush_and_trim().await.unwrap_err();
        assert_eq!(
            opened.rows().await,
            before,
            "{step:?}, seen by a query before the end"
        );
        END_AT
            .lock()
            .unwrap()
            .retain(|(root, _)| root != dir.path());
        drop(opened);

        let mut opened = open(dir.path()).await;
        assert_eq!(opened.rows().await, before, "{step:?}, after the restart");
        opened.push(&batch("a", 1, 10, 3));
        let before = opened.rows().await;
        opened.flush_and_trim().await.unwrap();
        assert_eq!(
            opened.rows().await,
            before,
            "{step:?}, after the next flush"
        );
        drop(opened);
        let opened = open(dir.path()).await;
        assert_eq!(
            opened.rows().await,
            before,
            "{step:?}, after a second restart"
        );
        let live = opened.store.snapshot().files();
        assert_eq!(
            files(&dir.path().join("tables"), ".parquet").len() as u64,
            live,
            "{step:?}: orphans"
        );
        assert!(
            files(&dir.path().join("tables"), ".tmp").is_empty(),
            "{step:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_failed_after_its_commit_is_finished_by_the_next() {
    for step in STEPS {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path()).await;
        (1..=4).for_each(|seq| opened.push(&batch("a", 1, seq, 3)));
        END_AT
            .lock()
            .unwrap()
            .push((dir.path().to_path_buf(), step));
        opened.flush_and_trim().await.unwrap_err();
        END_AT
            .lock()
            .unwrap()
            .retain(|(root, _)| root != dir.path());
        // The process lives on.
        (5..=6).for_each(|seq| opened.push(&batch("a", 1, seq, 3)));
        let before = opened.rows().await;
        opened.flush_and_trim().await.unwrap();
        opened.flush_and_trim().await.unwrap();
        assert_eq!(opened.rows().await, before, "{step:?}");
        assert_eq!(opened.store.hot_bytes(), 0, "{step:?}");
        drop(opened);
        assert_eq!(
            open(dir.path()).await.rows().await,
            before,
            "{step:?}, after a restart"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_commit_gives_its_rows_back_from_the_log() {
    for keep in [0, 40] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path()).await;
        (1..=4).for_each(|seq| opened.push(&batch("a", 1, seq, 3)));
        let before = opened.rows().await;
        END_AT
            .lock()
            .unwrap()
            .push((dir.path().to_path_buf(), Step::Committed));
        opened.flush_and_trim().await.unwrap_err();
        drop(opened);
        // Power is lost before the commit is synced: its file is cut.
        let commits = files(&dir.path().join("tables/vcpus/_delta_log"), ".json");
        let commit = std::fs::OpenOptions::new()
            .write(true)
            .open(commits.last().unwrap())
            .unwrap();
        commit.set_len(keep).unwrap();
        END_AT
            .lock()
            .unwrap()
            .retain(|(root, _)| root != dir.path());
        let mut opened = open(dir.path()).await;
        assert_eq!(opened.rows().await, before);
        assert_eq!(opened.store.quarantined(), 1);
        opened.flush_and_trim().await.unwrap();
        drop(opened);
        assert_eq!(open(dir.path()).await.rows().await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_deleted_does_not_hide_new_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    (1..=4).for_each(|seq| opened.push(&batch("a", 1, seq, 3)));
    opened.flush_and_trim().await.unwrap();
    drop(opened);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let mut opened = open(dir.path()).await;
    opened.push(&batch("a", 2, 5, 3));
    drop(opened);
    let opened = open(dir.path()).await;
    assert_eq!(opened.rows().await.lines().count(), 4 + 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_cut_by_day_and_skipped_by_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path()).await;
    let day = 86_400_000_000;
    for (seq, at) in [(1, T0), (2, T0 + day), (3, T0 + 2 * day)] {
        let rows = [vcpu_row("a", at + 5, 0), vcpu_row("a", at + 1, 0)];
        opened.push(&wire(
            "a",
            1,
            seq,
            vec![headroom_core::batch::Chunk::of(&rows)],
        ));
    }
    opened.flush_and_trim().await.unwrap();
    assert_eq!(
        files(&dir.path().join("tables/vcpus/date=2026-01-02"), ".parquet").len(),
        1
    );
    let engine = QueryEngine::new(
        Arc::clone(&opened.store) as _,
        Limits {
            memory: 64 << 20,
            timeout: PATIENCE,
        },
    )
    .unwrap();
    let sql = "SELECT count(*) FROM vcpus WHERE ts >= TIMESTAMP '2026-01-02T00:00:00Z' AND ts < TIMESTAMP '2026-01-03T00:00:00Z'";
    let (_, rows) = engine.collect(sql).await.unwrap();
    assert_eq!(number(&rows), 2);
    let (_, plan) = engine
        .collect(&format!("EXPLAIN FORMAT INDENT {sql}"))
        .await
        .unwrap();
    let plan = arrow::util::pretty::pretty_format_batches(&plan)
        .unwrap()
        .to_string();
    assert!(
        plan.contains("date=2026-01-02")
            && !plan.contains("date=2026-01-01")
            && !plan.contains("date=2026-01-03"),
        "{plan}"
    );
}

#[test]
fn bounds_survive_the_way_through_delta_and_only_widen() {
    let prepared = convert::wire(bytes(&batch("a", 1, 7, 3))).unwrap();
    for (table, rows) in &prepared.chunks {
        let declared = TABLES[*table];
        let bounds = Bounds::of(declared, rows);
        let back = Bounds::from_json(declared, Some(&bounds.to_json(declared)));
        assert_eq!(back.rows, bounds.rows);
        for (i, column) in declared.columns.iter().enumerate() {
            match (&bounds.columns[i], &back.columns[i]) {
                (Some((lo, hi)), Some((lo2, hi2))) => {
                    assert!(
                        lo2 <= lo && hi2 >= hi,
                        "{}: {lo}..{hi} became {lo2}..{hi2}",
                        column.name
                    );
                }
                (None, None) => {}
                other => panic!("{}: {other:?}", column.name),
            }
        }
    }
}

#[test]
fn hot_batches_stay_few() {
    let prepared = convert::wire(bytes(&batch("a", 1, 1, 2))).unwrap();
    let mut hot = Vec::new();
    for _ in 0..5000 {
        super::hot::push(&mut hot, prepared.chunks[0].1.clone());
    }
    assert!(hot.len() <= 64, "{}", hot.len());
    assert_eq!(hot.iter().map(|b| b.rows.num_rows()).sum::<usize>(), 10_000);
}

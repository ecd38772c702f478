//! The rows: the newest in memory, all others in Parquet files of Delta tables.
//!
//! **Invariant:** one atomic pointer ([`Store::snapshot`]) says what is in
//! memory and which files are live; rows move from one to the other in one
//! swap, so every reader sees each row exactly once.

mod delta;
mod flush;
pub mod hot;
mod hours;
mod late;
mod merge;
mod order;
mod parquet;
mod read;
mod replace;
mod retain;
mod stats;
mod tidy;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use headroom_core::metric::{TABLES, Table};
use headroom_core::rollup::stored;

pub use delta::{Change as Exchange, DeltaLog, DeltaTables, TableLog, Tables};
pub use hot::HotBatch;
pub use hours::{Hours, hour_of, read as hours_of};
pub use merge::{Merge, due};
pub use parquet::{FileWriter, NewFile, date};
pub use retain::{Keep, Usage, usage};
pub use stats::Bounds;

use crate::Error;
use crate::metrics::Work;
use crate::wal::Lsn;

/// Steps of a flush, in order; tests make the process end at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rows are set apart for the flush.
    Sealed,
    /// Files are written under temporary names, not synced.
    Written,
    /// Files are synced and have their names.
    Named,
    /// The table's log holds the commit, not synced.
    Committed,
    /// The commit is synced.
    Synced,
    /// Memory is let go of.
    Swapped,
}

/// A live Parquet file.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// Path relative to the table's directory.
    pub path: String,
    /// Size as committed, bytes.
    pub size: u64,
    /// Smallest and largest values by column, for skipping files.
    pub bounds: Arc<Bounds>,
}

/// The rows of one table.
#[derive(Clone, Debug, Default)]
pub struct TableRows {
    /// Rows in memory.
    pub hot: Vec<Arc<HotBatch>>,
    /// Rows in memory that are on their way to Parquet.
    pub flushing: Vec<Arc<HotBatch>>,
    /// Live files.
    pub files: Arc<Vec<Arc<DataFile>>>,
}

impl TableRows {
    /// Every batch in memory.
    pub fn in_memory(&self) -> impl Iterator<Item = &Arc<HotBatch>> {
        self.flushing.iter().chain(&self.hot)
    }
}

/// The rows of all tables at one moment, in the order of [`stored`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// One entry a table.
    pub tables: Vec<TableRows>,
}

impl Snapshot {
    /// The same without one file of a table, and whether it was there.
    pub fn without(&self, table: usize, path: &str) -> (Self, bool) {
        let mut next = self.clone();
        let mut files = Vec::clone(&next.tables[table].files);
        let before = files.len();
        files.retain(|f| f.path != path);
        let found = files.len() < before;
        next.tables[table].files = Arc::new(files);
        (next, found)
    }

    /// Rows and bytes in memory.
    pub fn hot(&self) -> (u64, u64) {
        let batches = self.tables.iter().flat_map(TableRows::in_memory);
        batches.fold((0, 0), |(rows, bytes), b| {
            (rows + b.rows.num_rows() as u64, bytes + b.bytes)
        })
    }

    /// Number of live files.
    pub fn files(&self) -> u64 {
        self.tables.iter().map(|t| t.files.len() as u64).sum()
    }
}

/// The store, open for writing.
pub struct Store {
    root: PathBuf,
    quarantine: PathBuf,
    logs: Vec<Arc<dyn TableLog>>,
    snapshot: ArcSwap<Snapshot>,
    /// Held for each change of the snapshot.
    change: Mutex<Change>,
    flush: tokio::sync::Mutex<()>,
    hot_bytes: AtomicU64,
    quarantined: AtomicU64,
    keep: Keep,
    /// How its flushes and merges went.
    pub work: Work,
}

/// One table at the start.
struct Opened {
    log: Arc<dyn TableLog>,
    rows: TableRows,
    position: Lsn,
    /// Whether its newest commit was torn.
    torn: bool,
}

impl Opened {
    async fn of(
        table: &'static Table,
        tables: Arc<dyn Tables>,
        (root, quarantine): (PathBuf, PathBuf),
    ) -> Result<Self, Error> {
        let dir = root.join(table.name);
        let torn = tidy::repair_log(&dir, &quarantine)?;
        let log = tables.open(table, &dir).await?;
        let files = log.files().await?;
        tidy::remove_dead(log.as_ref(), &dir, &files, crate::merger::KEEP_REPLACED).await?;
        Ok(Self {
            position: log.position().await?,
            rows: TableRows {
                files: Arc::new(files),
                ..TableRows::default()
            },
            log,
            torn,
        })
    }
}

/// What a change of the snapshot must keep in step with it.
#[derive(Debug)]
struct Change {
    /// Position of the last batch in the snapshot.
    applied: Lsn,
    /// By table: position up to which `flushing` reaches.
    sealed: Vec<Lsn>,
    /// By table: position up to which everything is in Parquet.
    committed: Vec<Lsn>,
}

impl Store {
    /// Opens the tables under `data_dir`, creates those that are missing and
    /// clears away what an interrupted flush left.
    ///
    /// # Errors
    /// A table can't be read or created.
    pub async fn open(data_dir: &Path) -> Result<Self, Error> {
        Self::open_with(data_dir, Arc::new(DeltaTables)).await
    }

    /// As [`DeltaTables`] or another keeper of the tables' logs has them.
    ///
    /// # Errors
    /// A table can't be read or created.
    pub async fn open_with(data_dir: &Path, tables: Arc<dyn Tables>) -> Result<Self, Error> {
        let (root, quarantine) = (data_dir.join("tables"), data_dir.join("quarantine"));
        // Together: one after the other they wait for the disk 72 times, and
        // half of the time is spent on reading their logs.
        let tasks = stored().iter().map(|table| {
            let opened = Opened::of(
                table,
                Arc::clone(&tables),
                (root.clone(), quarantine.clone()),
            );
            let task = tokio::spawn(opened);
            async move { task.await.map_err(Error::table("open", table.name))? }
        });
        let opened = futures::future::try_join_all(tasks).await?;
        let quarantined = opened.iter().map(|t| u64::from(t.torn)).sum();
        let sent = opened.iter().take(TABLES.len());
        let committed = sent.map(|t| t.position).collect();
        let (logs, tables) = opened.into_iter().map(|t| (t.log, t.rows)).unzip();
        Ok(Self {
            root,
            quarantine,
            logs,
            snapshot: ArcSwap::from_pointee(Snapshot { tables }),
            change: Mutex::new(Change {
                applied: 0,
                sealed: vec![0; TABLES.len()],
                committed,
            }),
            flush: tokio::sync::Mutex::new(()),
            hot_bytes: AtomicU64::new(0),
            quarantined: AtomicU64::new(quarantined),
            keep: Keep::default(),
            work: Work::default(),
        })
    }

    /// What there is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Directory of a table.
    pub fn table_dir(&self, table: usize) -> PathBuf {
        self.root.join(stored()[table].name)
    }

    /// Bytes of rows in memory.
    pub fn hot_bytes(&self) -> u64 {
        self.hot_bytes.load(Ordering::Relaxed)
    }

    /// Files set aside since the start.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// By table: position up to which everything is in Parquet.
    pub fn committed(&self) -> Vec<Lsn> {
        self.lock().committed.clone()
    }

    /// Adds durable batches, each with its position and its rows by table, in
    /// one change: a reader sees all of them or none.
    pub fn append(&self, batches: Vec<(Lsn, Vec<(usize, RecordBatch)>)>) {
        let mut change = self.lock();
        let mut next = Snapshot::clone(&self.snapshot.load());
        let mut added = 0;
        for (lsn, chunks) in batches {
            change.applied = change.applied.max(lsn);
            for (table, rows) in chunks {
                // At recovery, part of a batch's tables may be in Parquet.
                if rows.num_rows() > 0 && lsn > change.committed[table] {
                    added += hot::push(&mut next.tables[table].hot, rows);
                }
            }
        }
        self.hot_bytes.fetch_add(added, Ordering::Relaxed);
        self.snapshot.store(Arc::new(next));
    }

    /// Forgets a file that can't be read and keeps it in the quarantine;
    /// every other file stays queryable. Tells whether it was live.
    ///
    /// # Errors
    /// The table's log can't be written; the file is left out of queries all
    /// the same.
    pub async fn set_aside(&self, table: usize, path: &str) -> Result<bool, Error> {
        let _flush = self.flush.lock().await;
        if !self.forget(table, path) {
            return Ok(false);
        }
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            table = stored()[table].name,
            path,
            "unreadable file set aside, its rows are lost to queries"
        );
        tidy::keep_copy(
            &self.table_dir(table).join(path),
            stored()[table].name,
            &self.quarantine,
        );
        self.logs[table].remove(path).await?;
        Ok(true)
    }

    fn forget(&self, table: usize, path: &str) -> bool {
        let _change = self.lock();
        let (next, found) = self.snapshot.load().without(table, path);
        self.snapshot.store(Arc::new(next));
        found
    }

    fn lock(&self) -> MutexGuard<'_, Change> {
        // A panic while it was held left either the old or the new snapshot.
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub mod tests;

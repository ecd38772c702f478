//! Reading a data directory without a collector, and without changing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use headroom_core::rollup::stored;

use crate::Error;
use crate::ingest::convert;
use crate::query::{Limits, QueryEngine, Rows};
use crate::store::{DeltaLog, Snapshot, TableLog as _, TableRows, hot};
use crate::wal::{self, Lsn};

/// An engine over the tables and the log of `data_dir`, as they are now. A
/// collector may be at work on them; nothing is changed or locked.
///
/// # Errors
/// There is no collector data, or it can't be read.
pub async fn offline(data_dir: &Path) -> Result<QueryEngine, Error> {
    let root = data_dir.join("tables");
    let log = data_dir.join("log");
    if !root.is_dir() && !log.is_dir() {
        return Err(Error::NoData(data_dir.to_path_buf()));
    }
    // The log first: a flush in between moves rows into tables that are read
    // after it, and their position says which ones to leave out.
    let mut logged: Vec<(Lsn, Vec<(usize, RecordBatch)>)> = Vec::new();
    wal::read_only(&log, &mut |lsn, batch| match convert::batch(batch) {
        Ok(prepared) => logged.push((lsn, prepared.chunks)),
        Err(error) => tracing::warn!(lsn, %error, "batch in the log left out"),
    })?;
    let mut tables = Vec::new();
    for (i, table) in stored().iter().enumerate() {
        let mut rows = TableRows::default();
        let mut position = 0;
        if let Some(delta) = DeltaLog::open_existing(table, &root.join(table.name)).await? {
            position = delta.position().await?;
            rows.files = Arc::new(delta.files().await?);
        }
        let beyond = logged
            .iter()
            .filter(|(lsn, _)| *lsn > position)
            .flat_map(|(_, chunks)| chunks);
        for (_, batch) in beyond.filter(|(t, b)| *t == i && b.num_rows() > 0) {
            hot::push(&mut rows.hot, batch.clone());
        }
        tables.push(rows);
    }
    let root = std::fs::canonicalize(&root).unwrap_or(root);
    let rows = Offline {
        root,
        snapshot: ArcSwap::from_pointee(Snapshot { tables }),
    };
    // One reader, who can press Ctrl-C.
    QueryEngine::new(
        Arc::new(rows),
        Limits {
            memory: 2 << 30,
            timeout: Duration::from_secs(600),
        },
    )
}

struct Offline {
    root: PathBuf,
    snapshot: ArcSwap<Snapshot>,
}

#[async_trait]
impl Rows for Offline {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    fn table_dir(&self, table: usize) -> PathBuf {
        self.root.join(stored()[table].name)
    }

    async fn set_aside(&self, table: usize, path: &str) -> bool {
        tracing::warn!(
            table = stored()[table].name,
            path,
            "unreadable file left out of the answer"
        );
        let (next, found) = self.snapshot.load().without(table, path);
        self.snapshot.store(Arc::new(next));
        found
    }
}

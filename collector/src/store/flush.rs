//! From memory to Parquet, in steps that may each be the last of the process.
//!
//! Order: rows set apart → files written → synced and named → committed with
//! the position → commit synced → memory swapped. Only then may the caller
//! trim the write-ahead log. Ended before the commit, the rows come back from
//! the log and the files are removed as orphans; ended after it, the position
//! in the commit says which rows of the log to leave out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headroom_core::metric::{TABLES, Table};

use super::parquet::{self, NewFile};
use super::{DataFile, HotBatch, Snapshot, Step, Store};
use crate::Error;
use crate::error::chain;
use crate::wal::Lsn;

impl Store {
    /// Brings the rows in memory to Parquet; gives the position up to which
    /// everything is there, also if part of it failed.
    ///
    /// # Errors
    /// Of the first table that failed; its rows stay in memory and are tried
    /// again by the next call.
    pub async fn flush(&self) -> (Lsn, Result<(), Error>) {
        let _alone = self.flush.lock().await;
        self.seal();
        let mut outcome = step(Step::Sealed, &self.root);
        for (table, declared) in TABLES.iter().enumerate() {
            if outcome.as_ref().is_err_and(is_injected) {
                break;
            }
            if let Err(error) = self.flush_table(table).await {
                tracing::warn!(table = declared.name, error = %chain(&error), "flush failed, rows stay in memory");
                outcome = outcome.and(Err(error));
            }
        }
        let committed = self.committed().into_iter().min().unwrap_or(0);
        (committed, outcome)
    }

    /// Sets the rows in memory apart, all tables at one position.
    fn seal(&self) {
        let mut change = self.lock();
        let mut next = Snapshot::clone(&self.snapshot.load());
        // Roll-ups, which come last, are never in memory.
        for (i, rows) in next.tables.iter_mut().enumerate().take(TABLES.len()) {
            // What failed last time goes first, with its own position.
            if rows.flushing.is_empty() {
                rows.flushing = std::mem::take(&mut rows.hot);
                change.sealed[i] = change.applied;
            }
        }
        self.snapshot.store(Arc::new(next));
    }

    async fn flush_table(&self, table: usize) -> Result<(), Error> {
        let batches = self.snapshot.load().tables[table].flushing.clone();
        let sealed = self.lock().sealed[table];
        if batches.is_empty() {
            let mut change = self.lock();
            change.committed[table] = change.committed[table].max(sealed);
            return Ok(());
        }
        // Not below: an earlier call committed but could not finish.
        if self.logs[table].position().await? < sealed {
            self.write_and_commit(table, batches, sealed).await?;
        }
        self.logs[table].sync().await?;
        step(Step::Synced, &self.root)?;
        let files = self.logs[table].files().await?;
        self.swap(table, files, sealed);
        step(Step::Swapped, &self.root)
    }

    async fn write_and_commit(
        &self,
        table: usize,
        batches: Vec<Arc<HotBatch>>,
        sealed: Lsn,
    ) -> Result<(), Error> {
        let dir = self.table_dir(table);
        let declared = TABLES[table];
        let written = {
            let dir = dir.clone();
            crate::blocking::run(move || write_all(declared, &dir, &batches)).await
        };
        let files = written.map_err(Error::table("write files of", declared.name))??;
        let log = &self.logs[table];
        if let Err(error) = log.append(&files, sealed).await {
            log.reload().await?;
            if log.position().await? < sealed {
                for file in &files {
                    parquet::discard(&dir, file);
                }
                return Err(error);
            }
            tracing::warn!(table = declared.name, error = %chain(&error), "commit is there although it reported an error");
        }
        step(Step::Committed, &dir)
    }

    fn swap(&self, table: usize, files: Vec<Arc<DataFile>>, sealed: Lsn) {
        let mut change = self.lock();
        let mut next = Snapshot::clone(&self.snapshot.load());
        let rows = &mut next.tables[table];
        let freed: u64 = rows.flushing.iter().map(|b| b.bytes).sum();
        rows.flushing.clear();
        rows.files = Arc::new(files);
        change.committed[table] = change.committed[table].max(sealed);
        self.hot_bytes.fetch_sub(freed, Ordering::Relaxed);
        self.snapshot.store(Arc::new(next));
    }
}

fn write_all(
    table: &'static Table,
    dir: &std::path::Path,
    batches: &[Arc<HotBatch>],
) -> Result<Vec<NewFile>, Error> {
    let mut files = Vec::new();
    let mut run = || -> Result<(), Error> {
        for day in parquet::days(table, batches)? {
            files.push(parquet::write(table, dir, &day)?);
        }
        step(Step::Written, dir)?;
        for file in &files {
            parquet::publish(dir, file)?;
        }
        step(Step::Named, dir)
    };
    match run() {
        Ok(()) => Ok(files),
        Err(error) => {
            if !is_injected(&error) {
                files.iter().for_each(|f| parquet::discard(dir, f));
            }
            Err(error)
        }
    }
}

#[cfg(test)]
pub(super) use super::tests::{is_injected, step};

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "tests make the steps fail")]
pub(super) const fn step(_: Step, _: &std::path::Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(not(test))]
pub(super) const fn is_injected(_: &Error) -> bool {
    false
}

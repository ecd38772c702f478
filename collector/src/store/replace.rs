//! One file in the place of several with the same rows, and the end of those.
//!
//! Order as in a flush: written → synced and named → committed → commit synced
//! → queries see it. Ended before the commit, the new file is an orphan; ended
//! after it, the next start reads the new list of files.

use std::sync::Arc;
use std::time::Duration;

use super::flush::{is_injected, step};
use super::parquet::{self, NewFile};
use super::{DataFile, Exchange, Snapshot, Step, Store, tidy};
use crate::Error;

impl Store {
    /// Puts a file in the place of live ones, whose rows it holds.
    ///
    /// # Errors
    /// Some of them are not live any more, or their rows are not as many, or
    /// the disk or the table's log fails; all stays as it was.
    pub async fn replace(
        &self,
        table: usize,
        old: &[Arc<DataFile>],
        new: NewFile,
    ) -> Result<(), Error> {
        self.exchange(table, old, vec![new], Exchange::Layout).await
    }

    /// Takes files out of a table and puts others in, in one commit: readers
    /// see all of it or nothing.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub async fn exchange(
        &self,
        table: usize,
        old: &[Arc<DataFile>],
        new: Vec<NewFile>,
        change: Exchange,
    ) -> Result<(), Error> {
        let _alone = self.flush.lock().await;
        let (dir, log) = (self.table_dir(table), &self.logs[table]);
        let discard = || new.iter().for_each(|file| parquet::discard(&dir, file));
        if let Err(error) = self.publish(table, old, &new, change) {
            if !is_injected(&error) {
                discard();
            }
            return Err(error);
        }
        let paths: Vec<String> = old.iter().map(|file| file.path.clone()).collect();
        if let Err(error) = log.replace(&paths, &new, change).await {
            // While it is not known whether the commit is there, the files
            // stay: if it is not, they go as orphans later.
            log.reload().await?;
            let live = log.files().await?;
            let there = |path: &str| live.iter().any(|file| file.path == path);
            let done = match new.first() {
                Some(file) => there(&file.path),
                None => !paths.iter().any(|path| there(path)),
            };
            if !done {
                discard();
                return Err(error);
            }
        }
        step(Step::Committed, &dir)?;
        // Past the commit nothing may take the new file away again: an error
        // here is told, and the list of files is taken over all the same.
        let synced = log.sync().await;
        let files = log.files().await?;
        let _change = self.lock();
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.tables[table].files = Arc::new(files);
        self.snapshot.store(Arc::new(next));
        if let Err(error) = synced {
            tracing::warn!(error = %crate::error::chain(&error), "commit of replaced files not synced");
        }
        Ok(())
    }

    fn publish(
        &self,
        table: usize,
        old: &[Arc<DataFile>],
        new: &[NewFile],
        change: Exchange,
    ) -> Result<(), Error> {
        let dir = self.table_dir(table);
        step(Step::Written, &dir)?;
        self.check(table, old, new, change)?;
        for file in new {
            parquet::publish(&dir, file)?;
        }
        step(Step::Named, &dir)
    }

    fn check(
        &self,
        table: usize,
        old: &[Arc<DataFile>],
        new: &[NewFile],
        change: Exchange,
    ) -> Result<(), Error> {
        let live = &self.snapshot.load().tables[table].files;
        let name = headroom_core::rollup::stored()[table].name;
        if !old.iter().all(|o| live.iter().any(|f| f.path == o.path)) {
            let told = "an input was taken out of the table meanwhile";
            return Err(Error::table("replace files of", name)(told));
        }
        let rows: u64 = old.iter().map(|file| file.bounds.rows).sum();
        let made: u64 = new.iter().map(|file| file.bounds.rows).sum();
        if change == Exchange::Layout && rows != made {
            let told = format!("{rows} rows went in and {made} came out");
            return Err(Error::table("merge files of", name)(told));
        }
        Ok(())
    }

    /// Deletes files of a table that were replaced that long ago.
    ///
    /// # Errors
    /// The table's log or a directory can't be read.
    pub async fn delete_replaced(&self, table: usize, keep: Duration) -> Result<(), Error> {
        let _alone = self.flush.lock().await;
        let (log, dir) = (&self.logs[table], self.table_dir(table));
        let known = Arc::clone(&self.snapshot.load().tables[table].files);
        if tidy::dead(&dir, &known)?.is_empty() {
            return Ok(());
        }
        // By the log too, which knows of a commit that reported an error.
        log.reload().await?;
        let mut live = log.files().await?;
        live.extend(known.iter().cloned());
        tidy::remove_dead(log.as_ref(), &dir, &live, keep).await
    }
}

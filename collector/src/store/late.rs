//! The log of a table that is made when there is something to put in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use headroom_core::metric::Table;
use tokio::sync::OnceCell;

use super::parquet::NewFile;
use super::{DataFile, DeltaLog, Exchange, TableLog};
use crate::Error;
use crate::wal::Lsn;

/// A table that may not be there yet.
pub struct LateLog {
    table: &'static Table,
    dir: PathBuf,
    log: OnceCell<DeltaLog>,
}

impl LateLog {
    /// Opens the table if it is there.
    ///
    /// # Errors
    /// It can't be read, or has other columns.
    pub async fn open(table: &'static Table, dir: &Path) -> Result<Self, Error> {
        let late = Self {
            table,
            dir: dir.to_path_buf(),
            log: OnceCell::new(),
        };
        if dir.join("_delta_log").is_dir() {
            late.made().await?;
        }
        Ok(late)
    }

    async fn made(&self) -> Result<&DeltaLog, Error> {
        let open = || DeltaLog::open(self.table, &self.dir);
        self.log.get_or_try_init(open).await
    }
}

#[async_trait]
impl TableLog for LateLog {
    async fn files(&self) -> Result<Vec<Arc<DataFile>>, Error> {
        match self.log.get() {
            Some(log) => log.files().await,
            None => Ok(Vec::new()),
        }
    }

    async fn position(&self) -> Result<Lsn, Error> {
        match self.log.get() {
            Some(log) => log.position().await,
            None => Ok(0),
        }
    }

    async fn append(&self, files: &[NewFile], position: Lsn) -> Result<(), Error> {
        self.made().await?.append(files, position).await
    }

    async fn sync(&self) -> Result<(), Error> {
        match self.log.get() {
            Some(log) => log.sync().await,
            None => Ok(()),
        }
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        match self.log.get() {
            Some(log) => log.remove(path).await,
            None => Ok(()),
        }
    }

    async fn replace(
        &self,
        old: &[String],
        new: &[NewFile],
        change: Exchange,
    ) -> Result<(), Error> {
        self.made().await?.replace(old, new, change).await
    }

    async fn removed(&self) -> Result<Vec<(String, i64)>, Error> {
        match self.log.get() {
            Some(log) => log.removed().await,
            None => Ok(Vec::new()),
        }
    }

    async fn reload(&self) -> Result<(), Error> {
        match self.log.get() {
            Some(log) => log.reload().await,
            None => Ok(()),
        }
    }

    async fn shorten(&self, keep: Duration) -> Result<(), Error> {
        match self.log.get() {
            Some(log) => log.shorten(keep).await,
            None => Ok(()),
        }
    }
}

//! A table's log: which files make up the table, and up to which position of
//! the write-ahead log they reach.

mod clean;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{
    Action, Add, DataType, LogicalFileView, MetadataValue, StructField, Transaction,
};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableBuilder};
use futures::TryStreamExt as _;
use headroom_core::metric::{Column, Kind, TABLES, Table};
use tokio::sync::Mutex;

use super::late::LateLog;
use super::parquet::NewFile;
use super::stats::Bounds;
use super::{DataFile, tidy};
use crate::Error;
use crate::wal::Lsn;

/// Name under which commits note the position they reach.
const APP_ID: &str = "headroom-collector";

/// The log of one table.
#[async_trait]
pub trait TableLog: Send + Sync {
    /// Live files.
    ///
    /// # Errors
    /// The log can't be read.
    async fn files(&self) -> Result<Vec<Arc<DataFile>>, Error>;

    /// Position of the write-ahead log up to which the table holds all rows.
    ///
    /// # Errors
    /// The log can't be read.
    async fn position(&self) -> Result<Lsn, Error>;

    /// Adds files and the position they reach, in one commit.
    ///
    /// # Errors
    /// The commit may or may not be there: call [`TableLog::reload`] and look
    /// at the position.
    async fn append(&self, files: &[NewFile], position: Lsn) -> Result<(), Error>;

    /// Makes the last commit durable.
    ///
    /// # Errors
    /// The write-ahead log must not be trimmed.
    async fn sync(&self) -> Result<(), Error>;

    /// Takes a file out of the table.
    ///
    /// # Errors
    /// The log can't be written.
    async fn remove(&self, path: &str) -> Result<(), Error>;

    /// Puts files in the place of others, in one commit.
    ///
    /// # Errors
    /// The commit may or may not be there: call [`TableLog::reload`] and look
    /// at the files.
    async fn replace(&self, old: &[String], new: &[NewFile], change: Change) -> Result<(), Error>;

    /// Files taken out lately, with the time, ms since 1970 UTC.
    ///
    /// # Errors
    /// The log can't be read.
    async fn removed(&self) -> Result<Vec<(String, i64)>, Error>;

    /// Reads the log again.
    ///
    /// # Errors
    /// The log can't be read.
    async fn reload(&self) -> Result<(), Error>;

    /// Keeps the log itself short: entries older than `keep` go once a
    /// checkpoint holds what they tell.
    ///
    /// # Errors
    /// The log can't be read or written; nothing is lost.
    async fn shorten(&self, keep: Duration) -> Result<(), Error>;
}

/// What a replacement of files does to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the same ones lie in other files.
    Layout,
    /// There are others after it, or fewer.
    Rows,
}

/// Who keeps the logs of the tables.
#[async_trait]
pub trait Tables: Send + Sync {
    /// The log of the table with that directory; made if there is none.
    ///
    /// # Errors
    /// It can't be read or created, or has other columns.
    async fn open(&self, table: &'static Table, dir: &Path) -> Result<Arc<dyn TableLog>, Error>;
}

/// Delta, on the local disk. Roll-ups are made when there is something to put
/// in: most of a first start would be spent on creating them.
pub struct DeltaTables;

#[async_trait]
impl Tables for DeltaTables {
    async fn open(&self, table: &'static Table, dir: &Path) -> Result<Arc<dyn TableLog>, Error> {
        let sent = TABLES.iter().any(|t| t.name == table.name);
        Ok(if sent {
            Arc::new(DeltaLog::open(table, dir).await?)
        } else {
            Arc::new(LateLog::open(table, dir).await?)
        })
    }
}

/// A Delta table on the local disk.
pub struct DeltaLog {
    table: &'static Table,
    dir: PathBuf,
    state: Mutex<DeltaTable>,
}

impl DeltaLog {
    /// Opens the table, or creates it with the declared columns.
    ///
    /// # Errors
    /// It can't be read or created, or has other columns.
    pub async fn open(table: &'static Table, dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut delta = at(table, dir)?;
        if delta
            .verify_deltatable_existence()
            .await
            .map_err(Error::table("look for", table.name))?
        {
            delta
                .load()
                .await
                .map_err(Error::table("open", table.name))?;
        } else {
            delta = create(table, &delta).await?;
            tidy::sync_commit(&dir.join("_delta_log").join(format!("{:020}.json", 0)))?;
        }
        let log = Self {
            table,
            dir: dir.to_path_buf(),
            state: Mutex::new(delta),
        };
        log.add_new_columns().await?;
        Ok(log)
    }

    /// Adds the columns that the table's maker did not know yet. Older files
    /// do not have them: their rows are NULL there.
    async fn add_new_columns(&self) -> Result<(), Error> {
        let mut delta = self.state.lock().await;
        let new = missing_columns(self.table, &delta)?;
        if new.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = new.iter().map(|column| column.name).collect();
        tracing::info!(table = self.table.name, columns = ?names, "new columns added to the table");
        let fields: Vec<StructField> = new.into_iter().map(field).collect();
        *delta = delta
            .clone()
            .add_columns()
            .with_fields(fields)
            .await
            .map_err(Error::table("add columns to", self.table.name))?;
        drop(delta);
        self.sync().await
    }

    /// Opens a table that exists, without changing anything; `None` if there
    /// is none.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn open_existing(table: &'static Table, dir: &Path) -> Result<Option<Self>, Error> {
        if !dir.join("_delta_log").is_dir() {
            return Ok(None);
        }
        let mut delta = at(table, dir)?;
        if !delta
            .verify_deltatable_existence()
            .await
            .map_err(Error::table("look for", table.name))?
        {
            return Ok(None);
        }
        delta
            .load()
            .await
            .map_err(Error::table("open", table.name))?;
        Ok(Some(Self {
            table,
            dir: dir.to_path_buf(),
            state: Mutex::new(delta),
        }))
    }

    /// Live files as the log has them.
    async fn views(&self, operation: &'static str) -> Result<Vec<LogicalFileView>, Error> {
        let failed = || Error::table(operation, self.table.name);
        let delta = self.state.lock().await;
        let snapshot = delta.snapshot().map_err(failed())?.snapshot();
        let store = delta.log_store();
        let views = snapshot.file_views(store.as_ref(), None);
        views.try_collect().await.map_err(failed())
    }

    /// The actions that take those of the files out that are live.
    async fn removals(&self, paths: &[String], data_change: bool) -> Result<Vec<Action>, Error> {
        let views = self.views("take files out of").await?;
        let out = views
            .iter()
            .filter(|v| paths.iter().any(|path| *path == v.path()))
            .map(|v| Action::Remove(v.remove_action(data_change)));
        Ok(out.collect())
    }

    async fn commit(
        &self,
        actions: Vec<Action>,
        properties: CommitProperties,
        operation: DeltaOperation,
    ) -> Result<(), Error> {
        let mut delta = self.state.lock().await;
        let failed = || Error::table("commit to", self.table.name);
        // The log is shortened by us, once what replaces it is synced.
        let properties = properties
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(
                Some(delta.snapshot().map_err(failed())?),
                delta.log_store(),
                operation,
            )
            .await;
        done.map_err(failed())?;
        delta
            .update_state()
            .await
            .map_err(Error::table("read back", self.table.name))
    }
}

#[async_trait]
impl TableLog for DeltaLog {
    async fn files(&self) -> Result<Vec<Arc<DataFile>>, Error> {
        let views = self.views("list the files of").await?;
        let file = |v: &LogicalFileView| {
            Arc::new(DataFile {
                path: v.path().into_owned(),
                size: u64::try_from(v.size()).unwrap_or(0),
                bounds: Arc::new(Bounds::from_json(self.table, v.stats().as_deref())),
            })
        };
        let mut files: Vec<_> = views.iter().map(file).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    async fn position(&self) -> Result<Lsn, Error> {
        let delta = self.state.lock().await;
        let failed = || Error::table("read the position of", self.table.name);
        let snapshot = delta.snapshot().map_err(failed())?.snapshot();
        let version = snapshot
            .transaction_version(delta.log_store().as_ref(), APP_ID)
            .await
            .map_err(failed())?;
        Ok(version.and_then(|v| u64::try_from(v).ok()).unwrap_or(0))
    }

    async fn append(&self, files: &[NewFile], position: Lsn) -> Result<(), Error> {
        let version = i64::try_from(position).unwrap_or(i64::MAX);
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new(APP_ID, version));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec!["date".into()]),
            predicate: None,
        };
        let actions = files
            .iter()
            .map(|f| Action::Add(add(self.table, f)))
            .collect();
        self.commit(actions, properties, operation).await
    }

    async fn sync(&self) -> Result<(), Error> {
        let version = self.state.lock().await.version().unwrap_or(0);
        let log = self.dir.join("_delta_log");
        tidy::sync_commit(&log.join(format!("{version:020}.json")))
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let actions = self.removals(&[path.to_owned()], true).await?;
        if actions.is_empty() {
            return Ok(());
        }
        let operation = DeltaOperation::Delete { predicate: None };
        self.commit(actions, CommitProperties::default(), operation)
            .await?;
        self.sync().await
    }

    async fn replace(&self, old: &[String], new: &[NewFile], change: Change) -> Result<(), Error> {
        let data_change = change == Change::Rows;
        let mut actions = self.removals(old, data_change).await?;
        let added = new.iter().map(|file| {
            let add = add(self.table, file);
            Action::Add(Add { data_change, ..add })
        });
        actions.extend(added);
        let size: u64 = new.iter().map(|file| file.size).sum();
        let operation = match change {
            Change::Layout => DeltaOperation::Optimize {
                predicate: None,
                target_size: i64::try_from(size).unwrap_or(i64::MAX),
            },
            Change::Rows if new.is_empty() => DeltaOperation::Delete { predicate: None },
            Change::Rows => DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: Some(vec!["date".into()]),
                predicate: None,
            },
        };
        self.commit(actions, CommitProperties::default(), operation)
            .await
    }

    async fn removed(&self) -> Result<Vec<(String, i64)>, Error> {
        let delta = self.state.lock().await;
        let failed = || Error::table("list the removed files of", self.table.name);
        let state = delta.snapshot().map_err(failed())?;
        let store = delta.log_store();
        let tombstones: Vec<_> = state
            .all_tombstones(store.as_ref())
            .try_collect()
            .await
            .map_err(failed())?;
        let gone = tombstones.iter();
        Ok(gone
            .map(|t| (t.path().into_owned(), t.deletion_timestamp().unwrap_or(0)))
            .collect())
    }

    async fn reload(&self) -> Result<(), Error> {
        let mut delta = self.state.lock().await;
        delta
            .update_state()
            .await
            .map_err(Error::table("read again", self.table.name))
    }

    async fn shorten(&self, keep: Duration) -> Result<(), Error> {
        let mut delta = self.state.lock().await;
        clean::shorten(&mut delta, self.table, &self.dir, keep).await
    }
}

fn at(table: &'static Table, dir: &Path) -> Result<DeltaTable, Error> {
    let dir = std::fs::canonicalize(dir).map_err(Error::io("find", dir))?;
    let url = url::Url::from_directory_path(&dir).map_err(|()| {
        Error::table("name the directory of", table.name)("its path is not absolute")
    })?;
    DeltaTableBuilder::from_url(url)
        .and_then(DeltaTableBuilder::build)
        .map_err(Error::table("open", table.name))
}

async fn create(table: &'static Table, at: &DeltaTable) -> Result<DeltaTable, Error> {
    let date = StructField::nullable("date", DataType::DATE).with_metadata([(
        "comment",
        MetadataValue::String("day of the first column, UTC".into()),
    )]);
    at.create()
        .with_table_name(table.name)
        .with_comment(table.description)
        .with_columns(table.columns.iter().map(field).chain([date]))
        .with_partition_columns(["date"])
        .await
        .map_err(Error::table("create", table.name))
}

fn field(column: &Column) -> StructField {
    let kind = match column.kind {
        Kind::Time => DataType::TIMESTAMP,
        Kind::Int => DataType::LONG,
        Kind::Float => DataType::DOUBLE,
        Kind::Text => DataType::STRING,
        Kind::Hist => DataType::BINARY,
    };
    StructField::new(column.name, kind, column.nullable).with_metadata([
        ("comment", MetadataValue::String(column.description.into())),
        ("unit", MetadataValue::String(column.unit.symbol().into())),
    ])
}

/// Declared columns that a table does not have.
fn missing_columns(
    table: &'static Table,
    delta: &DeltaTable,
) -> Result<Vec<&'static Column>, Error> {
    let schema = delta
        .snapshot()
        .map_err(Error::table("open", table.name))?
        .schema();
    let missing = table.columns.iter();
    let missing: Vec<_> = missing.filter(|c| schema.field(c.name).is_none()).collect();
    // Rows that are there have no value for it.
    match missing.iter().find(|column| !column.nullable) {
        Some(column) => Err(Error::Schema {
            table: table.name,
            column: column.name,
        }),
        None => Ok(missing),
    }
}

fn add(table: &Table, file: &NewFile) -> Add {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Add {
        path: file.path.clone(),
        partition_values: HashMap::from([("date".to_string(), Some(file.date.clone()))]),
        size: i64::try_from(file.size).unwrap_or(i64::MAX),
        modification_time: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        data_change: true,
        stats: Some(file.bounds.to_json(table)),
        ..Add::default()
    }
}

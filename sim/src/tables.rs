//! The logs of the tables: commits in memory that a power cut takes away when
//! they were not synced. Delta itself works on threads and is not here; the
//! Parquet files are real.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use headroom_collector::Error;
use headroom_collector::embedded::{DataFile, Exchange, NewFile, TableLog, Tables};
use headroom_core::metric::Table;

use crate::chance;
use crate::trace::Trace;

/// What is wrong with the tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// One commit in so many fails, half of them after it is there; 0: none.
    pub commits: u32,
    /// One sync in so many fails; 0: none.
    pub syncs: u32,
    /// Commits do not note how far they reach: the control without position.
    pub forgetful: bool,
}

/// All logs; clones are the same ones.
#[derive(Clone)]
pub struct SimTables(Arc<Mutex<State>>, Trace);

#[derive(Default)]
struct State {
    faults: Faults,
    logs: BTreeMap<&'static str, Log>,
}

#[derive(Default)]
struct Log {
    commits: Vec<Commit>,
    durable: usize,
}

struct Commit {
    files: Vec<Arc<DataFile>>,
    position: u64,
}

impl SimTables {
    /// Empty tables without faults.
    pub fn new(trace: &Trace) -> Self {
        Self(Arc::default(), trace.clone())
    }

    /// Changes what is wrong.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// The process ended; with `power`, commits that were not synced may be
    /// gone.
    pub fn end(&self, power: bool) {
        let mut state = self.lock();
        let forgetful = state.faults.forgetful;
        for log in state.logs.values_mut() {
            if power && log.commits.len() > log.durable && chance::one_in(2) {
                log.commits.truncate(log.durable);
            }
            // A restart syncs the newest commit.
            log.durable = log.commits.len();
            if forgetful {
                log.commits.iter_mut().for_each(|c| c.position = 0);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Tables for SimTables {
    async fn open(&self, table: &'static Table, dir: &Path) -> Result<Arc<dyn TableLog>, Error> {
        std::fs::create_dir_all(dir).map_err(failed("create", table))?;
        self.lock().logs.entry(table.name).or_default();
        Ok(Arc::new(SimLog {
            table,
            tables: self.clone(),
        }))
    }
}

struct SimLog {
    table: &'static Table,
    tables: SimTables,
}

impl SimLog {
    fn with<R>(&self, look: impl FnOnce(&mut Log) -> R) -> R {
        look(self.tables.lock().logs.entry(self.table.name).or_default())
    }

    fn commit(&self, commit: Commit) {
        self.tables.1.note(
            format_args!("table"),
            format_args!(
                "{} commits {} files to {}",
                self.table.name,
                commit.files.len(),
                commit.position
            ),
        );
        self.with(|log| log.commits.push(commit));
    }
}

#[async_trait]
impl TableLog for SimLog {
    async fn files(&self) -> Result<Vec<Arc<DataFile>>, Error> {
        Ok(self.with(|log| log.commits.iter().flat_map(|c| c.files.clone()).collect()))
    }

    async fn position(&self) -> Result<u64, Error> {
        Ok(self.with(|log| log.commits.last().map_or(0, |c| c.position)))
    }

    async fn append(&self, files: &[NewFile], position: u64) -> Result<(), Error> {
        tokio::time::sleep(chance::pace()).await;
        let fails = chance::one_in(self.tables.lock().faults.commits);
        if fails && chance::one_in(2) {
            return Err(failed("commit to", self.table)("not there"));
        }
        let file = |f: &NewFile| {
            Arc::new(DataFile {
                path: f.path.clone(),
                size: f.size,
                bounds: Arc::new(f.bounds.clone()),
            })
        };
        self.commit(Commit {
            files: files.iter().map(file).collect(),
            position,
        });
        tokio::time::sleep(chance::pace()).await;
        if fails {
            return Err(failed("commit to", self.table)("there all the same"));
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), Error> {
        tokio::time::sleep(chance::pace()).await;
        if chance::one_in(self.tables.lock().faults.syncs) {
            return Err(failed("sync", self.table)("input/output error"));
        }
        self.with(|log| log.durable = log.commits.len());
        tokio::time::sleep(chance::pace()).await;
        Ok(())
    }

    async fn remove(&self, _: &str) -> Result<(), Error> {
        Err(failed("take a file out of", self.table)("not simulated"))
    }

    async fn replace(&self, _: &[String], _: &[NewFile], _: Exchange) -> Result<(), Error> {
        Err(failed("replace files of", self.table)("not simulated"))
    }

    async fn removed(&self) -> Result<Vec<(String, i64)>, Error> {
        Ok(Vec::new())
    }

    async fn reload(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn shorten(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

fn failed<E>(operation: &'static str, table: &'static Table) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| Error::Table {
        operation,
        table: table.name,
        source: source.into(),
    }
}

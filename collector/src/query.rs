//! SQL over the rows in memory and in Parquet together.
//!
//! What comes from outside runs in processes of their own ([`children`] here,
//! [`child`] there); those, the tests and readers without a collector run it
//! on threads of their own: planning has no await points, and a query that
//! plans for seconds must not hold up an ack.

pub mod child;
mod children;
mod engine;
mod error;
mod gate;
mod hist;
mod pg_catalog;
pub mod postgres;
mod provider;
mod session;
mod sorted;
mod verify;
mod views;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

pub use children::Program;
pub use engine::{Answer, Limits, QueryEngine};
pub use error::QueryError;
pub use sorted::sorted;
pub use verify::readable;

use crate::store::{Keep, Snapshot, Store};

/// Where the engine reads.
#[async_trait]
pub trait Rows: Send + Sync {
    /// The rows of this moment.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// The rows of this moment, of these tables at least.
    async fn of(&self, _tables: &[usize]) -> Arc<Snapshot> {
        self.snapshot()
    }

    /// Whether the last moment asked for has the rows of that table.
    fn holds(&self, _table: usize) -> bool {
        true
    }

    /// Directory of a table's files, absolute.
    fn table_dir(&self, table: usize) -> PathBuf;
    /// Takes note of a file that can't be read; tells whether it was live.
    async fn set_aside(&self, table: usize, path: &str) -> bool;
    /// How long rows are kept.
    fn keep(&self) -> Keep {
        Keep::default()
    }
}

#[async_trait]
impl Rows for Store {
    fn snapshot(&self) -> Arc<Snapshot> {
        Self::snapshot(self)
    }

    fn table_dir(&self, table: usize) -> PathBuf {
        Self::table_dir(self, table)
    }

    fn keep(&self) -> Keep {
        Self::keep(self)
    }

    async fn set_aside(&self, table: usize, path: &str) -> bool {
        match Self::set_aside(self, table, path).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), path, "bad file is out of queries but still in the table");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;

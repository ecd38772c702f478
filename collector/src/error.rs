//! What can go wrong in the collector, one variant an operation.

use std::io;
use std::path::{Path, PathBuf};

/// An operation of the collector that failed. The cause is `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory operation.
    #[error("can't {operation} {}", path.display())]
    Io {
        /// What was tried, as an infinitive.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another collector works on the directory.
    #[error(
        "data directory {} is in use by process {holder}; stop it or name another directory with --data-dir",
        path.display()
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Process id of the other collector as it wrote it, or "?".
        holder: String,
    },
    /// There is nothing to read.
    #[error("no collector data in {}; name the directory that `headroom up` used", .0.display())]
    NoData(PathBuf),
    /// A Delta operation.
    #[error("can't {operation} table {table}")]
    Table {
        /// What was tried, as an infinitive.
        operation: &'static str,
        /// Name of the table.
        table: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table on disk that another version of headroom made.
    #[error(
        "table {table} on disk lacks column {column}; it was made by another version: move its directory away"
    )]
    Schema {
        /// Name of the table.
        table: &'static str,
        /// Name of the column.
        column: &'static str,
    },
    /// Rows that can't be brought into the table's schema.
    #[error("can't build rows of table {table}")]
    Rows {
        /// Name of the table.
        table: &'static str,
        /// Why it failed.
        source: arrow::error::ArrowError,
    },
    /// The SQL engine could not be set up.
    #[error("can't set up the query engine")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address that can't be had.
    #[error(
        "collector.{key}: can't listen on {address}; if another program (a second headroom?) has the port, name a free one"
    )]
    Listen {
        /// Name of the key.
        key: &'static str,
        /// Address to listen on.
        address: std::net::SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// A key of the configuration names files that can't be used.
    #[error("collector.{key}: {problem}")]
    Config {
        /// Name of the key.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The client of remote-write could not be set up.
    #[error("can't set up remote-write")]
    RemoteWrite(#[source] reqwest::Error),
    /// The service could not serve.
    #[error("can't serve on {address}")]
    Serve {
        /// Address to listen on.
        address: std::net::SocketAddr,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A step was made to fail by a test.
    #[cfg(test)]
    #[error("injected at {0:?}")]
    Injected(crate::store::Step),
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// For `map_err` on table operations.
    pub(crate) fn table<E>(operation: &'static str, table: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Table {
            operation,
            table,
            source: source.into(),
        }
    }
}

/// The error and its causes in one line, for logs and refusals.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text.replace('\n', " ")
}

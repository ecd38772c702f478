//! The collector: takes batches in, keeps them, answers SQL over them.
//!
//! **Invariant:** a batch is acked only after `fdatasync` of the record that
//! holds it (see `docs/adr/0003-where-the-ack-happens.md`), and a query sees
//! each acked row exactly once: in memory or in one Parquet file.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blocking;
pub mod client;
mod compact;
pub mod config;
mod door;
pub mod embedded;
pub mod error;
mod http;
mod ingest;
mod lock;
mod merger;
mod metrics;
mod offline;
mod query;
mod remote_write;
mod rollup;
mod schema;
mod server;
mod service;
mod store;
mod wal;

pub use compact::{Compacted, compact};
pub use error::Error;
pub use metrics::COLLECTOR as METRICS;
pub use offline::offline;
pub use query::child::run as query_child;
pub use query::{Answer, QueryEngine, QueryError};
pub use service::run;

#[cfg(test)]
mod tests;

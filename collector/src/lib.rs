//! The collector: takes batches in, keeps them, answers SQL over them.
//!
//! **Invariant:** a batch is acked only after `fdatasync` of the record that
//! holds it (see `docs/adr/0003-where-the-ack-happens.md`), and a query sees
//! each acked row exactly once: in memory or in one Parquet file.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod client;
pub mod config;
mod door;
pub mod error;
mod ingest;
mod lock;
mod merger;
mod offline;
mod query;
mod rollup;
mod schema;
mod server;
mod service;
mod store;
mod wal;

pub use error::Error;
pub use offline::offline;
pub use query::{Answer, QueryEngine, QueryError};
pub use service::run;

#[cfg(test)]
mod tests;

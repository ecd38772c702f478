//! The gRPC services.

mod ingest;
mod query;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use headroom_core::metric::SCHEMA_VERSION;
use headroom_proto::v1::StatusReply;
use tokio::sync::{Semaphore, watch};

use crate::ingest::{Counters, Ingest};
use crate::query::QueryEngine;
use crate::store::Store;

/// Batches of all connections together that are checked or wait for their
/// sync. Each may have 16 MiB on the wire.
const BATCHES_IN_FLIGHT: usize = 256;

/// What the services share.
pub struct Shared {
    /// Where batches go; gone once the collector stops.
    pub ingest: Ingest,
    /// Who answers SQL.
    pub engine: Arc<QueryEngine>,
    /// The rows.
    pub store: Arc<Store>,
    /// Size of the log, bytes.
    pub log_bytes: Arc<AtomicU64>,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Corrupt parts of the log set aside at the start.
    pub log_quarantined: u64,
    /// Turns true when the collector stops.
    pub stopping: watch::Receiver<bool>,
    batches: Arc<Semaphore>,
}

/// The services of one collector.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

/// Parts that [`Services`] is made of.
pub struct Parts {
    /// See [`Shared`].
    pub ingest: Ingest,
    /// See [`Shared`].
    pub engine: Arc<QueryEngine>,
    /// See [`Shared`].
    pub store: Arc<Store>,
    /// See [`Shared`].
    pub log_bytes: Arc<AtomicU64>,
    /// See [`Shared`].
    pub counters: Arc<Counters>,
    /// See [`Shared`].
    pub log_quarantined: u64,
}

impl Services {
    /// Services that end their streams when `stopping` turns true.
    pub fn new(parts: Parts, stopping: watch::Receiver<bool>) -> Self {
        let Parts {
            ingest,
            engine,
            store,
            log_bytes,
            counters,
            log_quarantined,
        } = parts;
        let batches = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
        Self(Arc::new(Shared {
            ingest,
            engine,
            store,
            log_bytes,
            counters,
            log_quarantined,
            stopping,
            batches,
        }))
    }

    fn status(&self) -> StatusReply {
        use std::sync::atomic::Ordering::Relaxed;
        let Shared {
            store,
            log_bytes,
            counters,
            ..
        } = &*self.0;
        let snapshot = store.snapshot();
        StatusReply {
            version: env!("CARGO_PKG_VERSION").into(),
            schema_version: SCHEMA_VERSION,
            acked_rows: counters.acked_rows.load(Relaxed),
            duplicate_batches: counters.duplicate_batches.load(Relaxed),
            hot_rows: snapshot.hot().0,
            log_bytes: log_bytes.load(Relaxed),
            files: snapshot.files(),
            refusing: counters.refusing(),
            quarantined: self.0.log_quarantined + store.quarantined(),
        }
    }
}

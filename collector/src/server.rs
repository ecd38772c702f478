//! The gRPC services.

mod ingest;
mod query;
mod raw;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use headroom_core::metric::SCHEMA_VERSION;
use headroom_proto::v1::StatusReply;

use crate::ingest::Counters;
use crate::metrics::Doors;
use crate::query::QueryEngine;
use crate::store::Store;

pub use ingest::Intake;

/// What the services share.
pub struct Shared {
    /// Who answers SQL.
    pub engine: Arc<QueryEngine>,
    /// The rows.
    pub store: Arc<Store>,
    /// Size of the log, bytes.
    pub log_bytes: Arc<AtomicU64>,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Queries by door and outcome.
    pub doors: Arc<Doors>,
    /// Corrupt parts of the log set aside at the start.
    pub log_quarantined: u64,
}

/// The services of one collector.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

/// Parts that [`Services`] is made of.
pub struct Parts {
    /// See [`Shared`].
    pub engine: Arc<QueryEngine>,
    /// See [`Shared`].
    pub store: Arc<Store>,
    /// See [`Shared`].
    pub log_bytes: Arc<AtomicU64>,
    /// See [`Shared`].
    pub counters: Arc<Counters>,
    /// See [`Shared`].
    pub doors: Arc<Doors>,
    /// See [`Shared`].
    pub log_quarantined: u64,
}

impl Services {
    /// Services of these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            engine,
            store,
            log_bytes,
            counters,
            doors,
            log_quarantined,
        } = parts;
        Self(Arc::new(Shared {
            engine,
            store,
            log_bytes,
            counters,
            doors,
            log_quarantined,
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

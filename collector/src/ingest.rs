//! Taking batches in: check, append to the log, sync, show, then ack.
//!
//! **Invariant:** the order is check → log → `fdatasync` → memory → ack; what
//! is acked survives any end of the process and is queryable.

pub mod convert;
mod group;
mod order;
mod senders;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use convert::Prepared;
use group::Committer;
pub use senders::Senders;

use crate::remote_write::Feed;
use crate::store::Store;
use crate::wal::Wal;

/// Batches that wait for their group.
const QUEUE: usize = 256;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable and queryable.
    Stored,
    /// Was so already.
    Duplicate,
    /// Not taken; the sender keeps it and tries again.
    Refused {
        /// Why.
        reason: String,
        /// When to try again.
        retry: Duration,
    },
    /// Can never be taken.
    Invalid(String),
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows acked.
    pub acked_rows: AtomicU64,
    /// Batches acked, those that came again left out.
    pub acked_batches: AtomicU64,
    /// Rows of refused batches, each time that they came.
    pub refused_rows: AtomicU64,
    /// Batches that came again.
    pub duplicate_batches: AtomicU64,
    /// Batches refused for now.
    pub refused_batches: AtomicU64,
    /// Batches refused for ever.
    pub invalid_batches: AtomicU64,
    /// Rows of tables that this build does not know.
    pub unknown_rows: AtomicU64,
    /// Rows older than [`convert::LATE`] when they came.
    pub late_rows: AtomicU64,
    /// Who sent.
    pub senders: Senders,
    /// Set while writes fail, and why.
    refusing: Mutex<String>,
}

impl Counters {
    /// Why writes are refused; empty if they are not.
    pub fn refusing(&self) -> String {
        self.refusing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_refusing(&self, reason: &str) {
        let mut now = self.refusing.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_empty() && !reason.is_empty() {
            tracing::error!(reason, "refusing batches");
        }
        if !now.is_empty() && reason.is_empty() {
            tracing::info!(
                refused = self.refused_batches.load(Ordering::Relaxed),
                "taking batches again"
            );
        }
        reason.clone_into(&mut now);
    }
}

/// Limits of the group commit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest wait of a batch for others to share its sync.
    pub wait: Duration,
    /// Bytes that are synced without waiting longer.
    pub bytes: u64,
    /// Bytes of rows in memory at which batches are refused.
    pub hot: u64,
    /// Whether a batch that comes again is told by its name. Always, except
    /// where a simulation shows that it would be caught.
    pub dedupe: bool,
}

/// Where batches are handed in. Clones feed the same log; when the last one
/// is dropped the queue drains and the task given by [`Ingest::start`] ends.
#[derive(Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Request>,
    counters: Arc<Counters>,
}

struct Request {
    batch: Prepared,
    reply: oneshot::Sender<Outcome>,
}

impl Ingest {
    /// Starts the task that owns appending to the log.
    pub fn start(
        wal: Arc<Mutex<Wal>>,
        store: Arc<Store>,
        limits: Limits,
        counters: Arc<Counters>,
        feed: Option<Feed>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, requests) = mpsc::channel(QUEUE);
        let committer = Committer::new(wal, store, limits, Arc::clone(&counters), feed);
        let task = tokio::spawn(committer.run(requests));
        (Self { queue, counters }, task)
    }

    /// Hands in a batch; the outcome comes when it is known. Batches handed in
    /// one after the other are taken in that order.
    pub async fn submit(&self, wire: bytes::Bytes) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        // A few thousand rows take a millisecond.
        let prepared = crate::blocking::run(move || convert::wire(wire)).await;
        let refused = match prepared {
            Ok(Ok(batch)) => {
                self.counters
                    .unknown_rows
                    .fetch_add(batch.unknown_rows, Ordering::Relaxed);
                self.counters
                    .late_rows
                    .fetch_add(batch.late_rows, Ordering::Relaxed);
                match self.queue.send(Request { batch, reply }).await {
                    Ok(()) => return outcome,
                    Err(mpsc::error::SendError(request)) => {
                        let stopping = Outcome::Refused {
                            reason: "the collector is stopping".into(),
                            retry: Duration::from_secs(1),
                        };
                        let _ = request.reply.send(stopping);
                        return outcome;
                    }
                }
            }
            Ok(Err(error)) => error,
            Err(error) => error.to_string(),
        };
        self.counters
            .invalid_batches
            .fetch_add(1, Ordering::Relaxed);
        let _ = reply.send(Outcome::Invalid(refused));
        outcome
    }
}

#[cfg(test)]
pub mod tests;

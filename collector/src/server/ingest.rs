//! `Ingest.Push`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesOrdered, Stream, StreamExt as _};
use headroom_proto::columns;
use headroom_proto::v1::Ack;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::raw::RawIngest;
use crate::ingest::{self, Outcome};

/// Batches of all connections together that are checked or wait for their
/// sync. Each may have 16 MiB on the wire.
const BATCHES_IN_FLIGHT: usize = 256;
/// Batches of one stream without an answer; the sender waits beyond that.
const IN_FLIGHT: usize = 32;

/// Answers to the batches of a stream, in their order.
pub type Acks = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

/// The service that takes batches in.
#[derive(Clone)]
pub struct Intake {
    ingest: ingest::Ingest,
    /// Turns true when the collector stops.
    stopping: watch::Receiver<bool>,
    batches: Arc<Semaphore>,
}

impl Intake {
    /// One that ends its streams when `stopping` turns true.
    pub fn new(ingest: ingest::Ingest, stopping: watch::Receiver<bool>) -> Self {
        Self {
            ingest,
            stopping,
            batches: Arc::new(Semaphore::new(BATCHES_IN_FLIGHT)),
        }
    }

    /// For a server.
    pub fn service(self) -> RawIngest {
        RawIngest(self)
    }

    /// Takes the batches of a stream, each as it stands on the wire.
    pub fn push(&self, batches: Streaming<Bytes>) -> Acks {
        let (to, acks) = mpsc::channel(IN_FLIGHT);
        let push = Push {
            intake: self.clone(),
            to,
        };
        tokio::spawn(push.run(batches));
        Box::pin(ReceiverStream::new(acks))
    }
}

/// One stream of batches.
struct Push {
    intake: Intake,
    to: mpsc::Sender<Result<Ack, Status>>,
}

/// A batch whose outcome is awaited.
struct Waiting {
    epoch: u64,
    seq: u64,
    outcome: oneshot::Receiver<Outcome>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Push {
    async fn run(self, mut batches: Streaming<Bytes>) {
        let mut stopping = self.intake.stopping.clone();
        let mut waiting = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                () = ended(&mut stopping) => break,
                Some(ack) = waiting.next(), if !waiting.is_empty() => {
                    if self.to.send(Ok(ack)).await.is_err() {
                        return;
                    }
                }
                batch = batches.message(), if waiting.len() < IN_FLIGHT => match batch {
                    Ok(Some(batch)) => match columns::name(&batch) {
                        Ok(name) => {
                            let taken = self.submit(batch, (name.epoch, name.seq)).await;
                            waiting.push_back(taken.ack());
                        }
                        // Nothing says which batch an answer would be for.
                        Err(error) => {
                            tracing::debug!(%error, "stream ended at a message that is no batch");
                            break;
                        }
                    },
                    // The end of the sender's side, or of the connection.
                    Ok(None) => break,
                    Err(status) => {
                        tracing::debug!(%status, "stream of batches broke off");
                        break;
                    }
                },
            }
        }
        // Whatever was taken in is answered, also when the collector stops.
        while let Some(ack) = waiting.next().await {
            if self.to.send(Ok(ack)).await.is_err() {
                return;
            }
        }
    }

    async fn submit(&self, batch: Bytes, (epoch, seq): (u64, u64)) -> Waiting {
        let room = Arc::clone(&self.intake.batches).acquire_owned().await.ok();
        Waiting {
            epoch,
            seq,
            outcome: self.intake.ingest.submit(batch).await,
            _room: room,
        }
    }
}

/// Waits until the collector stops.
async fn ended(stopping: &mut watch::Receiver<bool>) {
    // An error: the one who would tell is gone, which says the same.
    let _ = stopping.wait_for(|s| *s).await;
}

impl Waiting {
    async fn ack(self) -> Ack {
        let (refused, retry) = match self.outcome.await {
            Ok(Outcome::Stored | Outcome::Duplicate) => (String::new(), Duration::ZERO),
            Ok(Outcome::Refused { reason, retry }) => (reason, retry),
            Ok(Outcome::Invalid(reason)) => (reason, Duration::ZERO),
            // The committer ended with the batch in its queue.
            Err(_) => (
                "the collector is stopping".to_string(),
                Duration::from_secs(1),
            ),
        };
        let retry_after_ms = u32::try_from(retry.as_millis()).unwrap_or(u32::MAX);
        Ack {
            epoch: self.epoch,
            seq: self.seq,
            refused,
            retry_after_ms,
        }
    }
}

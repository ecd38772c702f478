//! `Ingest.Push`.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesOrdered, Stream, StreamExt as _};
use headroom_proto::columns;
use headroom_proto::v1::Ack;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Services;
use crate::ingest::Outcome;

/// Batches of one stream without an answer; the sender waits beyond that.
const IN_FLIGHT: usize = 32;

/// Answers to the batches of a stream, in their order.
pub type Acks = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

impl Services {
    /// Takes the batches of a stream, each as it stands on the wire.
    pub fn push(&self, batches: Streaming<Bytes>) -> Acks {
        let (to, acks) = mpsc::channel(IN_FLIGHT);
        let push = Push {
            services: self.clone(),
            to,
            stopping: self.0.stopping.clone(),
        };
        tokio::spawn(push.run(batches));
        Box::pin(ReceiverStream::new(acks))
    }
}

/// One stream of batches.
struct Push {
    services: Services,
    to: mpsc::Sender<Result<Ack, Status>>,
    stopping: watch::Receiver<bool>,
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
        let mut stopping = self.stopping.clone();
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
        let shared = &self.services.0;
        let room = std::sync::Arc::clone(&shared.batches)
            .acquire_owned()
            .await
            .ok();
        Waiting {
            epoch,
            seq,
            outcome: shared.ingest.submit(batch).await,
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

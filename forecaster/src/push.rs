//! Stores rows through the collector's Ingest service.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headroom_core::batch::{Batch, Chunk};
use headroom_core::metric::SCHEMA_VERSION;
use headroom_proto::convert::to_wire;
use headroom_proto::v1::ingest_client::IngestClient;
use tonic::transport::Channel;

use crate::clock;
use crate::durable;

/// Batches kept while the collector is away. It is then also not read, so no
/// more than the last forecasts pile up.
const MAX_UNACKED: usize = 8;
/// Longest wait for all acknowledgements of one flush.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Rows could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The sender's id could not be kept.
    #[error("keeping the sender's id in {path}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The stream failed; batches stay and are sent again.
    #[error("pushing to the collector")]
    Push(#[source] Box<tonic::Status>),
    /// Acknowledgements did not come in time; batches stay and are sent again.
    #[error("the collector did not acknowledge within {} s", ACK_TIMEOUT.as_secs())]
    Timeout,
    /// The collector refused for now; batches stay and are sent again.
    #[error("the collector refuses: {0}")]
    Refused(String),
}

/// Sends batches in order and keeps them until they are acknowledged.
pub struct Pusher {
    ingest: IngestClient<Channel>,
    agent_id: String,
    host: String,
    epoch: u64,
    next_seq: u64,
    unacked: VecDeque<Batch>,
    dropped_rows: u64,
}

impl Pusher {
    /// A sender of this process, with the id kept in `dir`.
    ///
    /// # Errors
    /// An id that cannot be read or written.
    pub fn new(channel: Channel, dir: &Path, host: &str) -> Result<Self, PushError> {
        let ingest = IngestClient::new(channel)
            .max_encoding_message_size(headroom_proto::MAX_MESSAGE_BYTES)
            .max_decoding_message_size(headroom_proto::MAX_MESSAGE_BYTES);
        let epoch = u64::try_from(clock::now()).unwrap_or(1).max(1);
        let agent_id = identity(dir)?;
        Ok(Self {
            ingest,
            agent_id,
            host: host.into(),
            epoch,
            next_seq: 1,
            unacked: VecDeque::new(),
            dropped_rows: 0,
        })
    }

    /// Queues rows as one batch; `None` where the queue is full, and the rows
    /// are counted as dropped. Sequence numbers stay without gaps.
    pub fn push(&mut self, chunks: Vec<Chunk>) -> Option<u64> {
        let rows: usize = chunks.iter().map(Chunk::rows).sum();
        if rows == 0 {
            return None;
        }
        if self.unacked.len() >= MAX_UNACKED {
            self.dropped_rows += u64::try_from(rows).unwrap_or(u64::MAX);
            return None;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unacked.push_back(Batch {
            agent_id: self.agent_id.clone(),
            host: self.host.clone(),
            epoch: self.epoch,
            seq,
            made_at_us: clock::now(),
            schema_version: SCHEMA_VERSION,
            chunks,
        });
        Some(seq)
    }

    /// Sends everything that is not acknowledged, in order.
    ///
    /// # Errors
    /// The collector is away, slow or refuses; what it did acknowledge is
    /// settled, the rest stays.
    pub async fn flush(&mut self) -> Result<(), PushError> {
        if self.unacked.is_empty() {
            return Ok(());
        }
        let flushed = tokio::time::timeout(ACK_TIMEOUT, self.exchange()).await;
        flushed.unwrap_or(Err(PushError::Timeout))
    }

    /// Whether the batch was acknowledged (or refused for ever).
    #[must_use]
    pub fn settled(&self, seq: u64) -> bool {
        seq < self.next_seq && self.unacked.iter().all(|b| b.seq != seq)
    }

    /// Rows dropped since start because the collector was away too long.
    #[must_use]
    pub const fn dropped_rows(&self) -> u64 {
        self.dropped_rows
    }

    async fn exchange(&mut self) -> Result<(), PushError> {
        let failed = |s: tonic::Status| PushError::Push(Box::new(s));
        let batches: Vec<_> = self.unacked.iter().map(to_wire).collect();
        let mut acks = self
            .ingest
            .push(tokio_stream::iter(batches))
            .await
            .map_err(failed)?
            .into_inner();
        while !self.unacked.is_empty() {
            let Some(ack) = acks.message().await.map_err(failed)? else {
                return Err(PushError::Refused(
                    "it closed the stream before the last acknowledgement".into(),
                ));
            };
            if ack.epoch != self.epoch {
                continue;
            }
            if !ack.refused.is_empty() && ack.retry_after_ms > 0 {
                return Err(PushError::Refused(ack.refused));
            }
            if !ack.refused.is_empty() {
                let rows = self
                    .unacked
                    .iter()
                    .find(|b| b.seq == ack.seq)
                    .map_or(0, Batch::rows);
                self.dropped_rows += u64::try_from(rows).unwrap_or(u64::MAX);
                tracing::error!(
                    seq = ack.seq,
                    rows,
                    reason = ack.refused,
                    "collector refused a batch for ever, dropped"
                );
            }
            self.unacked.retain(|b| b.seq != ack.seq);
        }
        Ok(())
    }
}

fn identity(dir: &Path) -> Result<String, PushError> {
    let path = dir.join("id");
    let failed = |source| PushError::Identity {
        path: path.clone(),
        source,
    };
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
        _ => {
            let id = format!("forecaster-{}", ulid::Ulid::new());
            durable::write(&path, id.as_bytes()).map_err(failed)?;
            Ok(id)
        }
    }
}

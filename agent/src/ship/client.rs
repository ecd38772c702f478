//! The stream to the collector.

use std::time::{Duration, Instant};

use headroom_proto::v1::ingest_client::IngestClient;
use headroom_proto::{MAX_MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{Backoff, Queue};
use crate::sampler::chain;

/// How long to wait for one answer: an fdatasync of a busy disk takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause a collector can ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A session with the collector ended.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// No URL can be made of the address.
    #[error("agent.collector: {0:?} is no address")]
    Address(String),
    /// The call failed.
    #[error("pushing to the collector")]
    Push(#[from] tonic::Status),
    /// The collector ended the stream.
    #[error("the collector closed the stream")]
    Closed,
    /// No answer came in time.
    #[error("no answer from the collector within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// An answer to something that was not asked.
    #[error("the collector answered to batch {got}, not to {expected}")]
    Mismatch {
        /// Number in the answer.
        got: u64,
        /// Number of the batch sent.
        expected: u64,
    },
    /// The collector takes no batch now.
    #[error("the collector refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// A connection to `HOST:PORT` that is made when first needed and again
/// whenever it breaks.
///
/// # Errors
/// No URL can be made of the address.
pub fn channel(collector: &str) -> Result<Channel, ShipError> {
    Ok(endpoint(collector)?.connect_lazy())
}

/// `HOST:PORT` and the limits of a connection to it, not yet made.
///
/// # Errors
/// No URL can be made of the address.
pub fn endpoint(collector: &str) -> Result<Endpoint, ShipError> {
    let endpoint = Endpoint::from_shared(format!("http://{collector}"));
    let endpoint = endpoint.map_err(|_| ShipError::Address(collector.to_owned()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}

/// Sends what comes into the queue, for ever, through every failure; returns
/// once the queue is closed and empty.
pub async fn ship(queue: &Queue, channel: Channel) {
    let client = IngestClient::new(channel)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut outage = Outage::default();
    loop {
        let Err(error) = session(queue, client.clone(), &mut outage).await else {
            return;
        };
        let pause = outage.failed(&error, queue);
        sleep(pause).await;
    }
}

async fn session(
    queue: &Queue,
    mut client: IngestClient<Channel>,
    outage: &mut Outage,
) -> Result<(), ShipError> {
    let Some(mut batch) = queue.head().await else {
        return Ok(());
    };
    let (to_stream, stream) = mpsc::channel(1);
    let mut expected = (batch.epoch, batch.seq);
    // Before the call: a server may answer it only when it sees a batch.
    to_stream.send(batch).await.map_err(|_| ShipError::Closed)?;
    let call = client.push(ReceiverStream::new(stream));
    let mut answers = timeout(ANSWER_TIMEOUT, call)
        .await
        .map_err(|_| ShipError::Silent)??
        .into_inner();
    loop {
        let answer = timeout(ANSWER_TIMEOUT, answers.message())
            .await
            .map_err(|_| ShipError::Silent)??;
        settle(queue, &answer.ok_or(ShipError::Closed)?, expected)?;
        outage.over(queue);
        batch = match queue.head().await {
            Some(batch) => batch,
            None => return Ok(()),
        };
        expected = (batch.epoch, batch.seq);
        to_stream.send(batch).await.map_err(|_| ShipError::Closed)?;
    }
}

fn settle(queue: &Queue, answer: &v1::Ack, expected: (u64, u64)) -> Result<(), ShipError> {
    if (answer.epoch, answer.seq) != expected {
        return Err(ShipError::Mismatch {
            got: answer.seq,
            expected: expected.1,
        });
    }
    if answer.refused.is_empty() {
        queue.acked(answer.epoch, answer.seq);
        return Ok(());
    }
    if answer.retry_after_ms > 0 {
        let retry_after = Duration::from_millis(answer.retry_after_ms.into()).min(LONGEST_RETRY);
        return Err(ShipError::Refused {
            reason: answer.refused.clone(),
            retry_after,
        });
    }
    let rows = queue.rejected(answer.epoch, answer.seq).unwrap_or(0);
    tracing::error!(
        seq = answer.seq,
        rows,
        reason = answer.refused,
        "batch rejected as invalid, its rows are lost"
    );
    Ok(())
}

/// Failures since the last success: logged once, then summarised.
#[derive(Default)]
struct Outage {
    backoff: Backoff,
    failures: u32,
    since: Option<Instant>,
}

impl Outage {
    fn failed(&mut self, error: &ShipError, queue: &Queue) -> Duration {
        self.failures += 1;
        self.since.get_or_insert_with(Instant::now);
        if self.failures.is_power_of_two() {
            let waiting = queue.stats();
            let (failures, error) = (self.failures, chain(error));
            tracing::warn!(
                failures,
                error,
                batches = waiting.batches,
                dropped_rows = waiting.dropped_rows,
                "batches not shipped"
            );
        }
        let pause = self.backoff.pause();
        match error {
            ShipError::Refused { retry_after, .. } => pause.max(*retry_after),
            _ => pause,
        }
    }

    fn over(&mut self, queue: &Queue) {
        self.backoff.reset();
        if let Some(since) = self.since.take() {
            let (failures, seconds) = (
                std::mem::take(&mut self.failures),
                since.elapsed().as_secs(),
            );
            tracing::info!(
                failures,
                seconds,
                dropped_rows = queue.stats().dropped_rows,
                "shipping again"
            );
        }
    }
}

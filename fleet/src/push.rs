//! The stream of one agent, over every failure: what is refused or was not
//! answered is sent again in its order.
//!
//! `agent::ship` keeps one batch on its way; here several are, because one
//! generator stands for many agents and their spools.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use headroom_proto::v1::Ack;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::batch::Encoded;

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a broken connection: a collector that starts again is found at
/// once, without a busy loop.
const RETRY: Duration = Duration::from_millis(50);
/// Method of the ingest service.
const PUSH: &str = "/headroom.v1.Ingest/Push";

/// Why a batch can never be shipped.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The collector says that it is invalid.
    #[error("the collector rejected batch {seq} as invalid: {reason}")]
    Invalid {
        /// Its number.
        seq: u64,
        /// The collector's words.
        reason: String,
    },
}

/// Where the collector is.
#[derive(Clone, Debug)]
pub enum Target {
    /// At that address, HOST:PORT.
    At(String),
    /// At the address in that file, which a collector writes when it starts.
    File(PathBuf),
}

/// A connection that several agents share.
#[derive(Debug)]
pub struct Link {
    target: Target,
    made: Mutex<Option<(String, Channel)>>,
}

impl Link {
    /// A connection that is made when first needed.
    #[must_use]
    pub fn new(target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            made: Mutex::new(None),
        })
    }

    /// The channel to where the collector is now; `None` while nobody knows.
    fn channel(&self) -> Option<Channel> {
        let address = match &self.target {
            Target::At(address) => address.clone(),
            Target::File(path) => std::fs::read_to_string(path).ok()?.trim().to_owned(),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = made.as_ref().filter(|(a, _)| *a == address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = endpoint.connect_timeout(ANSWER_TIMEOUT).connect_lazy();
        *made = Some((address, channel.clone()));
        Some(channel)
    }
}

/// Why a session ended before its time.
enum Broken {
    /// Try again after the pause.
    Retry(Duration),
    /// It is of no use.
    Never(PushError),
}

impl From<Status> for Broken {
    fn from(_: Status) -> Self {
        Self::Retry(RETRY)
    }
}

/// Ships what comes from `source`, at most `in_flight` unanswered, and tells
/// `acked` of each batch once; returns when the source ended and everything is
/// acked.
///
/// # Errors
/// A batch is invalid.
pub async fn ship(
    link: &Link,
    mut source: mpsc::Receiver<Encoded>,
    in_flight: usize,
    acked: &(dyn Fn(&Encoded) + Sync),
) -> Result<(), PushError> {
    let mut waiting = VecDeque::new();
    loop {
        match session(link, &mut source, &mut waiting, (in_flight, acked)).await {
            Ok(()) => return Ok(()),
            Err(Broken::Retry(pause)) => sleep(pause).await,
            Err(Broken::Never(error)) => return Err(error),
        }
    }
}

type Terms<'a> = (usize, &'a (dyn Fn(&Encoded) + Sync));

async fn session(
    link: &Link,
    source: &mut mpsc::Receiver<Encoded>,
    waiting: &mut VecDeque<Encoded>,
    (in_flight, acked): Terms<'_>,
) -> Result<(), Broken> {
    if waiting.is_empty() {
        match source.recv().await {
            Some(batch) => waiting.push_back(batch),
            None => return Ok(()),
        }
    }
    let channel = link.channel().ok_or(Broken::Retry(RETRY))?;
    let (to, stream) = mpsc::channel(in_flight.max(waiting.len()));
    for batch in &*waiting {
        let _ = to.try_send(batch.bytes.clone());
    }
    let mut answers = timeout(ANSWER_TIMEOUT, open(channel, stream))
        .await
        .map_err(|_| Broken::Retry(RETRY))??;
    let mut more = true;
    loop {
        if !more && waiting.is_empty() {
            return Ok(());
        }
        tokio::select! {
            answer = timeout(ANSWER_TIMEOUT, answers.message()), if !waiting.is_empty() => {
                let answer = answer.map_err(|_| Broken::Retry(RETRY))??;
                settle(answer.ok_or(Broken::Retry(RETRY))?, waiting, acked)?;
            }
            next = source.recv(), if more && waiting.len() < in_flight => match next {
                Some(batch) => {
                    let sent = to.send(batch.bytes.clone()).await;
                    waiting.push_back(batch);
                    sent.map_err(|_| Broken::Retry(RETRY))?;
                }
                None => more = false,
            },
        }
    }
}

fn settle(
    answer: Ack,
    waiting: &mut VecDeque<Encoded>,
    acked: &(dyn Fn(&Encoded) + Sync),
) -> Result<(), Broken> {
    // Answers come in the order of the batches: another one belongs to a
    // stream that went wrong.
    let batch = match waiting.front() {
        Some(first) if (first.epoch, first.seq) == (answer.epoch, answer.seq) => first,
        _ => return Err(Broken::Retry(RETRY)),
    };
    if answer.refused.is_empty() {
        acked(batch);
        waiting.pop_front();
        return Ok(());
    }
    tracing::debug!(seq = answer.seq, reason = answer.refused, "refused");
    match answer.retry_after_ms {
        0 => Err(Broken::Never(PushError::Invalid {
            seq: answer.seq,
            reason: answer.refused,
        })),
        ms => Err(Broken::Retry(Duration::from_millis(ms.into()))),
    }
}

async fn open(channel: Channel, stream: mpsc::Receiver<Bytes>) -> Result<Streaming<Ack>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|e| Status::unavailable(e.to_string()))?;
    let request = Request::new(ReceiverStream::new(stream));
    let path = PathAndQuery::from_static(PUSH);
    Ok(grpc.streaming(request, path, Verbatim).await?.into_inner())
}

/// Sends messages that are encoded already.
#[derive(Clone, Copy, Debug, Default)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Bytes;
    type Decode = Ack;
    type Encoder = Self;
    type Decoder = <ProstCodec<Ack, Ack> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Ack, Ack>::default().decoder()
    }
}

impl Encoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

//! A real Ingest server with faults on order.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use headroom_proto::v1::ingest_server::{Ingest, IngestServer};
use headroom_proto::v1::{Ack, Batch};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What to do with the next batch instead of storing and acking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// End the stream before the batch is stored.
    DropBefore,
    /// Store it, then end the stream without an ack.
    DropAfter,
    /// Refuse for some milliseconds.
    Refuse(u32),
    /// Refuse for ever.
    Invalid,
}

/// What a collector would have on disk, and the faults to come.
#[derive(Default)]
pub struct Store {
    /// Batches by (epoch, seq).
    pub batches: BTreeMap<(u64, u64), Batch>,
    /// Every (epoch, seq) as it was stored first.
    pub order: Vec<(u64, u64)>,
    /// Arrivals of something stored before.
    pub duplicates: usize,
    /// Faults for the next batches.
    pub faults: VecDeque<Option<Fault>>,
}

impl Store {
    fn put(&mut self, batch: Batch) {
        let key = (batch.epoch, batch.seq);
        match self.batches.get(&key) {
            Some(stored) => {
                assert_eq!(*stored, batch, "{key:?} came again with other content");
                self.duplicates += 1;
            }
            None => {
                self.order.push(key);
                self.batches.insert(key, batch);
            }
        }
    }

    /// Rows stored.
    pub fn rows(&self) -> u64 {
        self.batches
            .values()
            .flat_map(|b| &b.chunks)
            .map(|c| u64::from(c.rows))
            .sum()
    }
}

/// A store that several servers serve one after the other.
pub type Shared = Arc<Mutex<Store>>;

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves the store; port 0 is any.
    pub async fn start(store: &Shared, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = oneshot::channel::<()>();
        let service = IngestServer::new(Service(store.clone()))
            .max_decoding_message_size(headroom_proto::MAX_MESSAGE_BYTES);
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                served = server => served.expect("serve"),
                // Drops the server: what is in flight is cut off.
                _ = stopped => {}
            }
        });
        Self {
            address,
            stop,
            task,
        }
    }

    /// Cuts all connections off.
    pub async fn kill(self) {
        drop(self.stop);
        self.task.await.expect("server task");
    }
}

struct Service(Shared);

#[tonic::async_trait]
impl Ingest for Service {
    type PushStream = ReceiverStream<Result<Ack, Status>>;

    async fn push(
        &self,
        request: Request<Streaming<Batch>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let (acks, stream) = mpsc::channel(16);
        let (store, mut batches) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(batch)) = batches.message().await {
                let Some(ack) = answer(&store, batch) else {
                    return;
                };
                if acks.send(Ok(ack)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The answer; `None` ends the stream.
fn answer(store: &Shared, batch: Batch) -> Option<Ack> {
    let mut store = store.lock().expect("store");
    let fault = store.faults.pop_front().flatten();
    let (epoch, seq) = (batch.epoch, batch.seq);
    let refuse = |retry_after_ms| {
        Some(Ack {
            epoch,
            seq,
            refused: "on order".into(),
            retry_after_ms,
        })
    };
    match fault {
        Some(Fault::DropBefore) => return None,
        Some(Fault::Refuse(ms)) => return refuse(ms),
        Some(Fault::Invalid) => return refuse(0),
        Some(Fault::DropAfter) | None => store.put(batch),
    }
    (fault != Some(Fault::DropAfter)).then(|| Ack {
        epoch,
        seq,
        ..Ack::default()
    })
}

//! Remote-write out: the series of VMs and hosts, from the rows as they are
//! acked, to a receiver of Prometheus remote-write 1.0.
//!
//! **Invariant:** an ack never waits for the receiver. What does not fit is
//! dropped and counted: rows before they are samples, samples before they are
//! sent.
//!
//! A row becomes samples once, when it is acked; what was acked before a start
//! is not sent again. A request whose outcome is not known is repeated as it
//! was: the receiver knows a sample by its series and time.
//!
//! source: <https://prometheus.io/docs/specs/prw/remote_write_spec/>

mod cells;
mod gather;
mod send;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::array::RecordBatch;
use headroom_core::metric::TABLES;
use headroom_core::series::{HOST_SERIES, VM_SERIES};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::RemoteWrite;
use crate::metrics::Sent;
use gather::Gatherer;
use send::{Request, Sender};

/// Batches that wait to become samples.
const BATCHES: usize = 1024;
/// Requests that wait to be sent: of at most 5000 samples each, 40 MB.
const REQUESTS: usize = 64;
/// Longest last attempt at the end.
const LAST: Duration = Duration::from_secs(3);

/// Where the ingest hands in what it acked.
#[derive(Clone)]
pub struct Feed {
    to: mpsc::Sender<Rows>,
    sent: Arc<Sent>,
}

type Rows = Vec<(usize, RecordBatch)>;

impl Feed {
    /// Hands in the rows of a batch, by table. Never waits.
    pub fn offer(&self, chunks: &[(usize, RecordBatch)]) {
        let ours = chunks.iter().filter(|(table, _)| has_series(*table));
        let rows: Rows = ours.cloned().collect();
        let number: usize = rows.iter().map(|(_, rows)| rows.num_rows()).sum();
        if number > 0 && self.to.try_send(rows).is_err() {
            self.sent.rows.fetch_add(number as u64, Relaxed);
        }
    }
}

/// Remote-write, or nothing where it is off.
#[derive(Default)]
pub struct RemoteWriter {
    /// Where acked rows go.
    pub feed: Option<Feed>,
    /// What became of them.
    pub sent: Option<Arc<Sent>>,
    /// Ends some time after `stopping`.
    pub task: Option<JoinHandle<()>>,
}

impl RemoteWriter {
    /// Starts the tasks that make samples and send them until `stopping`; then
    /// what waits is sent for up to 3 s.
    ///
    /// # Errors
    /// The HTTP client can't be set up.
    pub fn start(
        config: Option<RemoteWrite>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, crate::Error> {
        let Some(config) = config else {
            return Ok(Self::default());
        };
        let sent = Arc::new(Sent::default());
        let (to, rows) = mpsc::channel(BATCHES);
        let (requests, queue) = mpsc::channel(REQUESTS);
        let sender = Sender::new(&config, Arc::clone(&sent))?;
        let sending = tokio::spawn(sender.run(queue));
        let gathering = gather(rows, requests, config.every, Arc::clone(&sent), stopping);
        let task = tokio::spawn(async move {
            gathering.await;
            // Its queue has no sender any more, so it ends when it is empty.
            let abort = sending.abort_handle();
            if tokio::time::timeout(LAST, sending).await.is_err() {
                abort.abort();
                tracing::warn!("remote-write ended with samples not sent");
            }
        });
        let feed = Feed {
            to,
            sent: Arc::clone(&sent),
        };
        Ok(Self {
            feed: Some(feed),
            sent: Some(sent),
            task: Some(task),
        })
    }
}

async fn gather(
    mut rows: mpsc::Receiver<Rows>,
    requests: mpsc::Sender<Request>,
    every: Duration,
    sent: Arc<Sent>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut gatherer = Gatherer::new(Arc::clone(&sent));
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let end = tokio::select! {
            batch = rows.recv() => match batch {
                Some(batch) => {
                    gatherer.add(&batch);
                    if !gatherer.is_full() {
                        continue;
                    }
                    false
                }
                None => true,
            },
            _ = due.tick() => false,
            _ = stopping.wait_for(|s| *s) => {
                while let Ok(batch) = rows.try_recv() {
                    gatherer.add(&batch);
                }
                true
            }
        };
        for request in gatherer.take() {
            sent.waiting.fetch_add(1, Relaxed);
            if let Err(full) = requests.try_send(request) {
                sent.waiting.fetch_sub(1, Relaxed);
                sent.no_room.fetch_add(full.into_inner().samples, Relaxed);
            }
        }
        if end {
            return;
        }
    }
}

fn has_series(table: usize) -> bool {
    let name = TABLES.get(table).map(|t| t.name);
    let mut series = VM_SERIES.iter().chain(HOST_SERIES);
    series.any(|s| Some(s.table) == name)
}

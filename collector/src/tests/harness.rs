//! A collector to test with, a sender, and rows.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use headroom_core::batch::{Batch, Chunk};
use headroom_core::hist::Hist;
use headroom_core::metric::SCHEMA_VERSION;
use headroom_core::rows::{EventRow, VcpuRow};
use headroom_proto::convert::to_wire;
use headroom_proto::v1::ingest_client::IngestClient;
use headroom_proto::v1::{self, Ack};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::client::{self, Client};
use crate::config::Raw;

/// 2026-01-01T00:00:00Z, µs.
pub const T0: i64 = 1_767_225_600_000_000;

/// Long enough for any wait that ends on a condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn raw(dir: &Path) -> Raw {
    Raw {
        listen: "127.0.0.1:0".into(),
        pg_listen: String::new(),
        http_listen: "127.0.0.1:0".into(),
        data_dir: dir.to_path_buf(),
        group_commit: "5ms".into(),
        ..Raw::default()
    }
}

/// A running collector.
pub struct Collector {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Collector {
    pub async fn start(raw: Raw) -> Self {
        let dir = raw.data_dir.clone();
        let _ = std::fs::remove_file(dir.join("endpoint"));
        let (stop, stopped) = oneshot::channel::<()>();
        let config = raw.validate().unwrap();
        let task = tokio::spawn(crate::run(config, async {
            let _ = stopped.await;
        }));
        let address = endpoint(&dir).await;
        Self {
            address,
            stop: Some(stop),
            task,
        }
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    pub async fn client(&self) -> Client {
        client::connect(&self.address).await.unwrap()
    }

    pub async fn sender(&self) -> Sender {
        Sender::connect(&self.address).await
    }

    /// A single number.
    pub async fn number(&self, sql: &str) -> i64 {
        number(&self.client().await.sql(sql).await.unwrap().1)
    }

    pub async fn text(&self, sql: &str) -> String {
        let (_, rows) = self.client().await.sql(sql).await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string()
    }
}

pub async fn endpoint(dir: &Path) -> String {
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(text) = std::fs::read_to_string(dir.join("endpoint")) {
                return text.trim().to_string();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("collector does not get ready")
}

pub fn number(rows: &[RecordBatch]) -> i64 {
    let column = rows
        .iter()
        .find(|b| b.num_rows() > 0)
        .expect("a row")
        .column(0);
    assert!(!column.is_null(0), "NULL");
    column.as_primitive::<Int64Type>().value(0)
}

/// One push stream.
pub struct Sender {
    to: mpsc::Sender<v1::Batch>,
    acks: tonic::Streaming<Ack>,
}

impl Sender {
    pub async fn connect(address: &str) -> Self {
        let mut client: IngestClient<Channel> = IngestClient::connect(format!("http://{address}"))
            .await
            .unwrap();
        let (to, batches) = mpsc::channel(64);
        let acks = client
            .push(ReceiverStream::new(batches))
            .await
            .unwrap()
            .into_inner();
        Self { to, acks }
    }

    /// Sends and waits for the answer.
    pub async fn push(&mut self, batch: &v1::Batch) -> Ack {
        self.try_push(batch).await.expect("an answer")
    }

    pub async fn try_push(&mut self, batch: &v1::Batch) -> Option<Ack> {
        self.to.send(batch.clone()).await.ok()?;
        self.acks.message().await.ok()?
    }

    pub async fn send(&mut self, batch: &v1::Batch) {
        self.to.send(batch.clone()).await.unwrap();
    }

    /// The next answer; `None` when the connection is gone.
    pub async fn next_ack(&mut self) -> Option<Ack> {
        self.acks.message().await.ok()?
    }

    /// Sends; `None` when the connection is gone.
    pub async fn offer(&mut self, batch: &v1::Batch) -> Option<()> {
        self.to.send(batch.clone()).await.ok()
    }

    pub async fn ack(&mut self) -> Ack {
        self.acks.message().await.unwrap().expect("an answer")
    }

    /// Sends one after the other until each is acked.
    pub async fn push_all(&mut self, batches: &[v1::Batch]) {
        for batch in batches {
            let ack = self.push(batch).await;
            assert_eq!((ack.refused.as_str(), ack.seq), ("", batch.seq));
        }
    }
}

/// A batch of vCPU rows, each different: ten seconds apart, `rows` vCPUs.
pub fn batch(agent: &str, epoch: u64, seq: u64, rows: i64) -> v1::Batch {
    let ts = T0 + i64::try_from(seq).unwrap() * 10_000_000;
    let vcpus: Vec<VcpuRow> = (0..rows).map(|vcpu| vcpu_row(agent, ts, vcpu)).collect();
    let event = EventRow {
        ts,
        host: agent.into(),
        kind: "test".into(),
        subject: format!("batch/{epoch}/{seq}"),
        detail: "sent".into(),
    };
    wire(
        agent,
        epoch,
        seq,
        vec![Chunk::of(&vcpus), Chunk::of(&[event])],
    )
}

/// The bytes of a message.
pub fn bytes(batch: &v1::Batch) -> bytes::Bytes {
    prost::Message::encode_to_vec(batch).into()
}

pub fn wire(agent: &str, epoch: u64, seq: u64, chunks: Vec<Chunk>) -> v1::Batch {
    let batch = Batch {
        agent_id: agent.into(),
        host: agent.into(),
        epoch,
        seq,
        made_at_us: T0,
        schema_version: SCHEMA_VERSION,
        chunks,
    };
    to_wire(&batch)
}

pub fn vcpu_row(agent: &str, ts: i64, vcpu: i64) -> VcpuRow {
    let mut hist = Hist::default();
    hist.record(1_000_000, 90);
    hist.record(20_000_000, 10);
    VcpuRow {
        ts,
        host: agent.into(),
        vm_id: format!("vm-{agent}"),
        vm_name: "one".into(),
        vcpu,
        window_ns: 10_000_000_000,
        run_ns: 4_000_000_000 + vcpu,
        ready_ns: 5_000_000_000,
        ready_ratio: 0.5,
        ready_hist: Some(hist.encode()),
        source: "tp_btf".into(),
        ..VcpuRow::default()
    }
}

pub fn batches(agent: &str, seqs: std::ops::RangeInclusive<u64>, rows: i64) -> Vec<v1::Batch> {
    seqs.map(|seq| batch(agent, 1, seq, rows)).collect()
}

/// Every row of vcpus in one line each, in a fixed order.
pub const ALL_VCPUS: &str = "SELECT ts, host, vm_id, vcpu, window_ns, run_ns, ready_ns, ready_wake_ns, ready_ratio, \
     hist_count(ready_hist) AS waits, hist_quantile(ready_hist, 0.99) AS p99, source FROM vcpus ORDER BY vm_id, vcpu, ts";

/// Files of a directory tree that end so.
pub fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Tests of the store's failing steps and of switches that are global to the
/// process take turns.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: OnceLock<tokio::sync::Mutex<()>> = OnceLock::new();
    TURN.get_or_init(|| tokio::sync::Mutex::new(()))
        .lock()
        .await
}

/// Prints why a test can't run here; fails it where the environment says that
/// it must.
pub fn skip(capability: &str, reason: &str) {
    let required = std::env::var("HEADROOM_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|c| c == capability),
        "{capability} is required, but: {reason}"
    );
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skip: {reason}\n"));
}

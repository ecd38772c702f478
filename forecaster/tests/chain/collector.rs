//! A collector's face: Query over generated windows, and Ingest that records.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::ipc::writer::StreamWriter;
use headroom_proto::v1::ingest_server::{Ingest, IngestServer};
use headroom_proto::v1::query_server::{Query, QueryServer};
use headroom_proto::v1::{Ack, Batch, SqlPiece, SqlRequest, StatusReply, StatusRequest};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// Threads of the host and vCPUs of the VM.
pub const THREADS: i64 = 4;
pub const VCPUS: i64 = 2;

/// One synthetic window of host `h1` with VM `v'1`.
#[derive(Clone, Copy)]
pub struct Window {
    /// Its end, µs.
    pub ts: i64,
    /// Its length, ns.
    pub ns: i64,
    /// Demand of the VM, vCPUs.
    pub demand: f64,
    /// Share of its vCPUs' time that was ready.
    pub ready: f64,
    /// Whether the host's totals are there.
    pub busy: bool,
}

#[derive(Clone, Default)]
pub struct Collector {
    pub windows: Arc<Mutex<Vec<Window>>>,
    pub pushed: Arc<Mutex<Vec<Batch>>>,
    pub statements: Arc<Mutex<Vec<String>>>,
    /// Refuse that many batches for now.
    pub refuse: Arc<Mutex<u32>>,
}

impl Collector {
    pub async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve_on(listener);
        address
    }

    pub fn serve_on(&self, listener: TcpListener) {
        let server = tonic::transport::Server::builder()
            .add_service(QueryServer::new(self.clone()))
            .add_service(IngestServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
    }

    /// States of recommendations pushed so far.
    pub fn states(&self) -> Vec<String> {
        let pushed = self.pushed.lock().unwrap();
        let decoded = pushed
            .iter()
            .map(|b| headroom_proto::convert::from_wire(b).unwrap().batch);
        let chunks = decoded
            .flat_map(|b| b.chunks)
            .filter(|c| c.table.name == "recommendation_log");
        chunks.flat_map(|c| texts(&c, "state")).collect()
    }
}

pub fn texts(chunk: &headroom_core::batch::Chunk, column: &str) -> Vec<String> {
    match &chunk.columns[chunk.table.position(column).unwrap()] {
        headroom_core::batch::ColumnData::Text(v) => v.iter().map(|t| t.clone().unwrap()).collect(),
        other => panic!("{other:?}"),
    }
}

type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Query for Collector {
    type SqlStream = Pieces<SqlPiece>;

    async fn sql(&self, request: Request<SqlRequest>) -> Result<Response<Self::SqlStream>, Status> {
        let sql = request.into_inner().sql;
        self.statements.lock().unwrap().push(sql.clone());
        let windows = self.windows.lock().unwrap().clone();
        let batch = answer(&sql, &windows);
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        drop(writer);
        // Pieces cut anywhere, as the protocol says.
        let pieces: Vec<_> = bytes
            .chunks(100)
            .map(|c| Ok(SqlPiece { ipc: c.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(StatusReply::default()))
    }
}

#[tonic::async_trait]
impl Ingest for Collector {
    type PushStream = Pieces<Ack>;

    async fn push(
        &self,
        batches: Request<Streaming<Batch>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let this = self.clone();
        let acks = batches.into_inner().map(move |batch| {
            let batch = batch?;
            let mut ack = Ack {
                epoch: batch.epoch,
                seq: batch.seq,
                ..Ack::default()
            };
            let mut refuse = this.refuse.lock().unwrap();
            if *refuse > 0 {
                *refuse -= 1;
                (ack.refused, ack.retry_after_ms) = ("disk full".into(), 10);
            } else {
                this.pushed.lock().unwrap().push(batch);
            }
            Ok(ack)
        });
        Ok(Response::new(Box::pin(acks)))
    }
}

/// What the store would answer. It bins as the statement says.
fn answer(sql: &str, windows: &[Window]) -> RecordBatch {
    if sql.starts_with("SELECT window_ns FROM hosts") {
        let latest = windows.iter().rev().take(51).map(|w| w.ns);
        return batch(vec![("window_ns", ints(latest))]);
    }
    let from = time_in(sql);
    let windows: Vec<Window> = windows.iter().filter(|w| w.ts >= from).copied().collect();
    if sql.starts_with("SELECT min(ts)") {
        let first = windows.iter().map(|w| w.ts).min();
        return batch(vec![("ts", times(first.into_iter()))]);
    }
    let (step, half) = intervals_in(sql);
    let mut bins: Vec<(i64, Vec<Window>)> = Vec::new();
    for w in windows {
        let bin = (w.ts - half * 1000).div_euclid(step * 1000) * step * 1000;
        match bins.last_mut() {
            Some((last, members)) if *last == bin => members.push(w),
            _ => bins.push((bin, vec![w])),
        }
    }
    let sum = |f: &dyn Fn(&Window) -> i64| ints(bins.iter().map(|(_, m)| m.iter().map(f).sum()));
    let ready = |w: &Window| scale(w.ns * VCPUS, w.ready);
    let text = |t: &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(bins.iter().map(|_| t)))
    };
    let same = |n: i64| ints(bins.iter().map(|_| n));
    let mut columns = vec![
        ("bin", times(bins.iter().map(|b| b.0))),
        ("vcpus", same(VCPUS)),
    ];
    if sql.contains("FROM vms") {
        columns.extend([
            ("vm_id", text("v'1")),
            ("vm_name", text("etl")),
            ("host", text("h1")),
            ("platform", text("libvirt")),
        ]);
        columns.extend([(
            "tenant",
            Arc::new(StringArray::from_iter(bins.iter().map(|_| None::<&str>))) as ArrayRef,
        )]);
        columns.push(("demand_ns", sum(&|w| scale(w.ns, w.demand))));
    } else {
        assert!(
            sql.contains("FROM hosts") && sql.contains("coalesce(busy_ns, vm_run_ns)"),
            "{sql}"
        );
        columns.extend([("host", text("h1")), ("threads", same(THREADS))]);
        // Half a thread of other work, where the host's totals are there.
        let busy = |w: &Window| scale(w.ns, w.demand + if w.busy { 0.5 } else { 0.0 });
        columns.push(("demand_ns", sum(&busy)));
    }
    columns.push(("ready_sum_ns", sum(&ready)));
    columns.push(("window_sum_ns", sum(&|w| w.ns)));
    columns.push(("vcpu_ns", sum(&|w| w.ns * VCPUS)));
    batch(columns)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small synthetic numbers"
)]
fn scale(ns: i64, by: f64) -> i64 {
    (ns as f64 * by) as i64
}

fn time_in(sql: &str) -> i64 {
    let text = sql
        .split("ts >= '")
        .nth(1)
        .and_then(|r| r.split('\'').next())
        .expect(sql);
    let at =
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap()
}

fn intervals_in(sql: &str) -> (i64, i64) {
    let parse = |r: &str| r.split(' ').next().unwrap().parse::<i64>().unwrap();
    let found: Vec<i64> = sql.split("INTERVAL '").skip(1).map(parse).collect();
    (found[0], found[1])
}

fn ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

fn batch(columns: Vec<(&'static str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

//! The whole process: open, recover, serve, drain.

mod endpoint;
pub(crate) mod flusher;
mod psql;
mod web;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headroom_proto::v1::query_server::QueryServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::Error;
use crate::config::Config;
use crate::ingest::{self, Counters, Ingest};
use crate::lock::DataDirLock;
use crate::merger;
use crate::metrics::Doors;
use crate::query::{self, QueryEngine};
use crate::remote_write::RemoteWriter;
use crate::server::{Intake, Parts, Services};
use crate::store::{DeltaTables, Store, Tables};
use crate::wal::{Disk, Layout, RealDisk, Recovery, Wal};
use crate::{door, http};
use psql::Psql;
use web::Web;

/// Longest wait for open streams at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// Longest last flush; what is not flushed comes back from the log.
const LAST_FLUSH: Duration = Duration::from_secs(20);
/// A peer that does not answer a ping is gone after these two.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Streams of one connection.
const STREAMS: u32 = 64;

/// Serves until `shutdown`, then answers what was taken in, brings the rows
/// in memory to Parquet and lets go of the data directory.
///
/// # Errors
/// The data directory is in use or can't be read, or the address can't be
/// served.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let _lock = DataDirLock::take(&config.data_dir)?;
    let began = Instant::now();
    let (listener, address) = listen("listen", config.listen).await?;
    let pg = Psql::open(&config).await?;
    let (store, wal, recovery) = open(&config, Arc::new(DeltaTables), Box::new(RealDisk)).await?;
    let log_bytes = wal.lock().unwrap_or_else(PoisonError::into_inner).size();
    let counters = Arc::new(Counters::default());
    let (stop, stopping) = watch::channel(false);
    let remote = RemoteWriter::start(config.remote_write.clone(), stopping.clone())?;
    let (ingest, committer) = Ingest::start(
        Arc::clone(&wal),
        Arc::clone(&store),
        limits(&config),
        Arc::clone(&counters),
        remote.feed,
    );
    let engine = Arc::new(engine(&config, &store)?);
    let doors = Arc::new(Doors::default());
    let flusher = flusher::start(&config, &store, &wal, stopping.clone());
    let merger = merger::start(&store, stopping.clone());
    let door = http::Door {
        engine: Arc::clone(&engine),
        store: Arc::clone(&store),
        log_bytes: Arc::clone(&log_bytes),
        counters: Arc::clone(&counters),
        doors: Arc::clone(&doors),
        sent: remote.sent,
        log_quarantined: recovery.quarantined,
        started: unix_seconds(),
    };
    let web = Web::start(&config, door, stopping.clone()).await?;
    let pg = pg.map(|pg| pg.serve(Arc::clone(&engine), stopping.clone()));
    let intake = Intake::new(ingest, stopping);
    let parts = Parts {
        engine,
        store: Arc::clone(&store),
        log_bytes,
        counters,
        doors,
        log_quarantined: recovery.quarantined,
    };
    let services = Services::new(parts);
    let _endpoint = endpoint::announce(&config.data_dir, "endpoint", address)?;
    let ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(%address, recovered_batches = recovery.batches, ready_ms, "collector ready");
    let served = serve(listener, (intake, services), stop, shutdown).await;
    // The services are gone and with them the last sender to the committer.
    let _ = tokio::time::timeout(DRAIN, committer).await;
    if let Some(pg) = pg {
        pg.ended().await;
    }
    if let Some(web) = web {
        web.ended().await;
    }
    if let Some(sending) = remote.task {
        let _ = sending.await;
    }
    let _ = flusher.await;
    let _ = merger.await;
    last_flush(&store, &wal).await;
    tracing::info!("collector stopped");
    Ok(served.map_err(serve_error(address))?)
}

async fn last_flush(store: &Arc<Store>, wal: &Arc<Mutex<Wal>>) {
    let flushed = tokio::time::timeout(LAST_FLUSH, flusher::flush(store, wal)).await;
    if flushed.is_err() {
        tracing::warn!("last flush did not end in time; its rows come back from the log");
    }
}

const fn limits(config: &Config) -> ingest::Limits {
    ingest::Limits {
        wait: config.group_commit,
        bytes: config.group_bytes,
        hot: config.hot_limit,
        dedupe: true,
    }
}

fn engine(config: &Config, store: &Arc<Store>) -> Result<QueryEngine, Error> {
    let rows = Arc::clone(store) as Arc<dyn query::Rows>;
    let limits = query::Limits {
        memory: config.query_memory,
        timeout: config.query_timeout,
    };
    match &config.query_program {
        None => QueryEngine::new(rows, limits),
        Some(args) => {
            let program = query::Program {
                args: args.clone(),
                count: config.query_children,
                hot: config.hot_limit,
            };
            QueryEngine::apart(rows, limits, program)
        }
    }
}

/// Now, s since 1970 UTC.
fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// Listens on the address of a key of `[collector]`.
async fn listen(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = door::listen(key, address).await?;
    let at = listener.local_addr().map_err(serve_error(address))?;
    Ok((listener, at))
}

/// Opens the tables and brings the rows back that only the log holds.
pub(crate) async fn open(
    config: &Config,
    tables: Arc<dyn Tables>,
    disk: Box<dyn Disk>,
) -> Result<(Arc<Store>, Arc<Mutex<Wal>>, Recovery), Error> {
    let store = Store::open_with(&config.data_dir, tables).await?;
    let store = store.keeping(config.keep);
    let layout = Layout {
        dir: config.data_dir.join("log"),
        quarantine: config.data_dir.join("quarantine"),
        segment_size: config.segment_size,
    };
    let (mut wal, recovery) = Wal::open(
        layout,
        disk,
        &mut |lsn, batch| match ingest::convert::batch(batch) {
            Ok(prepared) => store.append(vec![(lsn, prepared.chunks)]),
            Err(error) => {
                tracing::error!(lsn, %error, "batch in the log does not fit the catalogue, left out")
            }
        },
    )?;
    // The tables may know positions that the log lost with its directory.
    wal.skip(store.committed().into_iter().max().unwrap_or(0));
    Ok((Arc::new(store), Arc::new(Mutex::new(wal)), recovery))
}

/// A server with the limits that every door has.
pub(crate) fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS))
}

async fn serve(
    listener: TcpListener,
    (intake, services): (Intake, Services),
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error> {
    let ended = stop.subscribe();
    let signal = async move {
        shutdown.await;
        tracing::info!("collector stopping");
        let _ = stop.send(true);
        // Kept until the server is gone: the flusher waits on it too.
        std::future::pending::<()>().await
    };
    let mut told = ended.clone();
    let server = server()
        .add_service(intake.service())
        .add_service(QueryServer::new(services))
        .serve_with_incoming_shutdown(
            tokio_stream::wrappers::TcpListenerStream::new(listener),
            async move {
                let _ = told.wait_for(|s| *s).await;
            },
        );
    let mut late = ended;
    tokio::select! {
        () = signal => Ok(()),
        served = server => served,
        () = async move {
            let _ = late.wait_for(|s| *s).await;
            tokio::time::sleep(DRAIN).await;
        } => {
            tracing::warn!("connections still open at the end, closing them");
            Ok(())
        }
    }
}

fn serve_error<E>(address: SocketAddr) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| Error::Serve {
        address,
        source: source.into(),
    }
}

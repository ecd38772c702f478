//! The whole process: open, recover, serve, drain.

mod endpoint;
mod flusher;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headroom_proto::MAX_MESSAGE_BYTES;
use headroom_proto::v1::ingest_server::IngestServer;
use headroom_proto::v1::query_server::QueryServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::Error;
use crate::config::Config;
use crate::door;
use crate::ingest::{self, Counters, Ingest, convert};
use crate::lock::DataDirLock;
use crate::merger;
use crate::query::{self, QueryEngine};
use crate::server::{Parts, Services};
use crate::store::Store;
use crate::wal::{Layout, RealDisk, Recovery, Wal};

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
    let listener = door::listen("listen", config.listen).await?;
    let address = listener.local_addr().map_err(serve_error(config.listen))?;
    let pg = match &config.pg {
        Some(pg) => Some(door::Pg::open(pg, &config.data_dir).await?),
        None => None,
    };
    let (store, wal, recovery) = open(&config).await?;
    let log_bytes = wal.lock().unwrap_or_else(PoisonError::into_inner).size();
    let counters = Arc::new(Counters::default());
    let limits = ingest::Limits {
        wait: config.group_commit,
        bytes: config.group_bytes,
        hot: config.hot_limit,
    };
    let (ingest, committer) = Ingest::start(
        Arc::clone(&wal),
        Arc::clone(&store),
        limits,
        Arc::clone(&counters),
    );
    let limits = query::Limits {
        memory: config.query_memory,
        timeout: config.query_timeout,
    };
    let engine = QueryEngine::new(Arc::clone(&store) as Arc<dyn query::Rows>, limits)?;
    let engine = Arc::new(engine);
    let (stop, stopping) = watch::channel(false);
    let flusher = flusher::start(&config, &store, &wal, stopping.clone());
    let merger = merger::start(&store, stopping.clone());
    let _pg_endpoint = match &pg {
        Some(pg) => Some(endpoint::announce(
            &config.data_dir,
            "endpoint.pg",
            pg.address(),
        )?),
        None => None,
    };
    let pg = pg.map(|pg| pg.serve(Arc::clone(&engine), config.query_timeout, stopping.clone()));
    let parts = Parts {
        ingest,
        engine,
        store: Arc::clone(&store),
        log_bytes,
        counters,
        log_quarantined: recovery.quarantined,
    };
    let services = Services::new(parts, stopping);
    let _endpoint = endpoint::announce(&config.data_dir, "endpoint", address)?;
    let ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(%address, recovered_batches = recovery.batches, ready_ms, "collector ready");
    let served = serve(listener, services, stop, shutdown).await;
    // The services are gone and with them the last sender to the committer.
    let _ = tokio::time::timeout(DRAIN, committer).await;
    if let Some(pg) = pg {
        let _ = tokio::time::timeout(DRAIN, pg).await;
    }
    let _ = flusher.await;
    let _ = merger.await;
    if tokio::time::timeout(LAST_FLUSH, flusher::flush(&store, &wal))
        .await
        .is_err()
    {
        tracing::warn!("last flush did not end in time; its rows come back from the log");
    }
    tracing::info!("collector stopped");
    Ok(served.map_err(serve_error(address))?)
}

async fn open(config: &Config) -> Result<(Arc<Store>, Arc<Mutex<Wal>>, Recovery), Error> {
    let store = Store::open(&config.data_dir).await?.keeping(config.keep);
    let layout = Layout {
        dir: config.data_dir.join("log"),
        quarantine: config.data_dir.join("quarantine"),
        segment_size: config.segment_size,
    };
    let (mut wal, recovery) = Wal::open(layout, Box::new(RealDisk), &mut |lsn, batch| {
        match convert::batch(&batch) {
            Ok(prepared) => store.append(vec![(lsn, prepared.chunks)]),
            Err(error) => {
                tracing::error!(lsn, %error, "batch in the log does not fit the catalogue, left out")
            }
        }
    })?;
    // The tables may know positions that the log lost with its directory.
    wal.skip(store.committed().into_iter().max().unwrap_or(0));
    Ok((Arc::new(store), Arc::new(Mutex::new(wal)), recovery))
}

async fn serve(
    listener: TcpListener,
    services: Services,
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
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS))
        .add_service(
            IngestServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
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

fn serve_error<E>(address: std::net::SocketAddr) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| Error::Serve {
        address,
        source: source.into(),
    }
}

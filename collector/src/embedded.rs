//! The collector in a process, a time and on a network of somebody else: what
//! `headroom-sim` drives. The same intake, log, recovery, store and flusher as
//! [`crate::run`]; no door for readers and no merger, whose work needs threads.

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::Stream;
use headroom_core::metric::Table;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::transport::server::Connected;

pub use crate::blocking::simulate;
pub use crate::store::{Bounds, DataFile, Exchange, NewFile, TableLog, Tables};
pub use crate::wal::{Disk, LogFile};

use crate::Error;
use crate::config::Config;
use crate::ingest::{self, Counters, Ingest};
use crate::schema;
use crate::server::Intake;
use crate::service::{flusher, open, server};
use crate::store::Store;

/// What the collector stands on.
pub struct Machine {
    /// What the write-ahead log is written with.
    pub disk: Box<dyn Disk>,
    /// Who keeps the logs of the tables.
    pub tables: Arc<dyn Tables>,
    /// False: a batch that comes again is stored again.
    pub dedupe: bool,
}

/// A collector that is ready to serve.
pub struct Embedded {
    intake: Intake,
    store: Arc<Store>,
    counters: Arc<Counters>,
    recovered: u64,
    // The flusher ends without it.
    _stop: watch::Sender<bool>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows acked.
    pub acked_rows: u64,
    /// Batches that came again.
    pub duplicate_batches: u64,
    /// Batches refused for now.
    pub refused_batches: u64,
    /// Batches refused for ever.
    pub invalid_batches: u64,
    /// Batches brought back from the log at the start.
    pub recovered_batches: u64,
}

impl Embedded {
    /// Recovers and starts the tasks that commit and flush, on the runtime of
    /// the caller.
    ///
    /// # Errors
    /// The data directory can't be read.
    pub async fn open(config: &Config, machine: Machine) -> Result<Self, Error> {
        let (store, wal, recovery) = open(config, machine.tables, machine.disk).await?;
        let counters = Arc::new(Counters::default());
        let limits = ingest::Limits {
            wait: config.group_commit,
            bytes: config.group_bytes,
            hot: config.hot_limit,
            dedupe: machine.dedupe,
        };
        let (ingest, _committer) = Ingest::start(
            Arc::clone(&wal),
            Arc::clone(&store),
            limits,
            Arc::clone(&counters),
            None,
        );
        let (stop, stopping) = watch::channel(false);
        flusher::start(config, &store, &wal, stopping.clone());
        Ok(Self {
            intake: Intake::new(ingest, stopping),
            store,
            counters,
            recovered: recovery.batches,
            _stop: stop,
        })
    }

    /// Serves until the connections end.
    ///
    /// # Errors
    /// As the transport says.
    pub async fn serve<C>(
        &self,
        connections: impl Stream<Item = io::Result<C>>,
    ) -> Result<(), tonic::transport::Error>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let router = server().add_service(self.intake.clone().service());
        router.serve_with_incoming(connections).await
    }

    /// What a reader would find; outlives the collector.
    pub fn view(&self) -> View {
        View {
            store: Arc::clone(&self.store),
            counters: Arc::clone(&self.counters),
            recovered: self.recovered,
        }
    }
}

/// The rows of a collector, and its counts.
#[derive(Clone)]
pub struct View {
    store: Arc<Store>,
    counters: Arc<Counters>,
    recovered: u64,
}

impl View {
    /// Every row of a table.
    ///
    /// # Errors
    /// A live file can't be read.
    pub fn rows(&self, table: &'static Table) -> Result<Vec<RecordBatch>, Error> {
        self.store.rows(schema::index(table))
    }

    /// Live files of all tables.
    pub fn files(&self) -> u64 {
        self.store.snapshot().files()
    }

    /// What was counted since the start.
    pub fn counts(&self) -> Counts {
        use std::sync::atomic::Ordering::Relaxed;
        Counts {
            acked_rows: self.counters.acked_rows.load(Relaxed),
            duplicate_batches: self.counters.duplicate_batches.load(Relaxed),
            refused_batches: self.counters.refused_batches.load(Relaxed),
            invalid_batches: self.counters.invalid_batches.load(Relaxed),
            recovered_batches: self.recovered,
        }
    }
}

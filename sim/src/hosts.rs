//! The software of the simulated hosts: the real one, on simulated ground.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headroom_agent::ship::{Identity, Queue, endpoint, keep, ship};
use headroom_collector::config::Config;
use headroom_collector::embedded::{Embedded, Machine};
use headroom_proto::convert::to_wire;

use crate::book::{Book, host};
use crate::chance;
use crate::disk::SimDisk;
use crate::net::{COLLECTOR, Connector, PORT, listen};
use crate::tables::SimTables;
use crate::trace::Trace;

/// Bytes of an agent's memory for batches: more than the spool ever leaves
/// there, so that what is dropped is dropped by the spool.
const MEMORY: usize = 8 << 20;

/// What the collector's host starts with.
#[derive(Clone)]
pub struct Collector {
    /// Its configuration.
    pub config: Config,
    /// Its disk.
    pub disk: SimDisk,
    /// Its tables.
    pub tables: SimTables,
    /// False: the control without dedupe.
    pub dedupe: bool,
    /// Where it says that it is ready.
    pub book: Book,
    /// Of the whole simulation.
    pub trace: Trace,
}

/// What an agent's host starts with.
#[derive(Clone)]
pub struct Agent {
    /// Its number.
    pub number: usize,
    /// Its data.
    pub dir: PathBuf,
    /// Bytes of its spool.
    pub spool: u64,
    /// Between two batches.
    pub every: Duration,
    /// Where the batches are written down.
    pub book: Book,
    /// Of the whole simulation.
    pub trace: Trace,
}

/// A collector, until it is crashed.
pub async fn collector(start: Collector) -> turmoil::Result {
    let collector = open(&start).await;
    let view = collector.view();
    let recovered = view.counts().recovered_batches;
    start.trace.note(
        format_args!("{COLLECTOR}"),
        format_args!(
            "ready, {recovered} batches recovered, {} files",
            view.files()
        ),
    );
    let connections = listen().await?;
    {
        let mut book = start.book.lock();
        book.collector = Some(view);
        book.ready = true;
    }
    collector.serve(connections).await?;
    Ok(())
}

/// Tries again for ever, as a service manager would.
async fn open(start: &Collector) -> Embedded {
    loop {
        let machine = Machine {
            disk: Box::new(start.disk.clone()),
            tables: Arc::new(start.tables.clone()),
            dedupe: start.dedupe,
        };
        match Embedded::open(&start.config, machine).await {
            Ok(collector) => return collector,
            // Without its own text, which names a directory that is not the
            // seed's.
            Err(error) => start.trace.note(
                format_args!("{COLLECTOR}"),
                format_args!(
                    "does not start: {:?}",
                    error.source().map(ToString::to_string)
                ),
            ),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// An agent, until it is crashed or has shipped everything after the end.
pub async fn agent(start: Agent) -> turmoil::Result {
    let identity = Identity::load(&start.dir)?;
    let queue = Arc::new(Queue::new(MEMORY));
    let spool = start.dir.join("agent/spool");
    tokio::spawn(keep(&queue, spool, start.spool, chance::keeper_pace));
    start.book.lock().agents[start.number].queue = Some(queue.clone());
    start.trace.note(
        format_args!("{}", host(start.number)),
        format_args!("started as {} {}", identity.agent_id, identity.epoch),
    );
    let channel = endpoint(&format!("{COLLECTOR}:{PORT}"))?.connect_with_connector_lazy(Connector);
    tokio::spawn(sample(start.clone(), identity, queue.clone()));
    ship(&queue, channel).await;
    start.trace.note(
        format_args!("{}", host(start.number)),
        format_args!("drained: {:?}", queue.stats()),
    );
    Ok(())
}

/// In the place of the sampler.
async fn sample(start: Agent, identity: Identity, queue: Arc<Queue>) {
    while !start.book.lock().over {
        let name = (identity.agent_id.as_str(), identity.epoch);
        let batch = start.book.batch(start.number, name, 0);
        queue.push(to_wire(&batch));
        start.trace.note(
            format_args!("{}", host(start.number)),
            format_args!("pushed, {:?}", queue.stats()),
        );
        tokio::time::sleep(start.every).await;
    }
    queue.close();
}

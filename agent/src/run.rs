//! The agent as a process: prepare, sample, ship, drain.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel as stop_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headroom_core::batch::Batch;
use headroom_core::metric::SCHEMA_VERSION;
use headroom_proto::convert::to_wire;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::metrics::{self, Board, Labels};
use crate::sampler::{Sampler, SamplerOptions};
use crate::ship::{self, Identity, Keeper, Queue};
use crate::{clock, memory, privilege};

/// How often to look for VMs and threads and to read them.
const TICK: Duration = Duration::from_secs(1);

/// How often to look how many vCPUs of a VM want to run at once, where the
/// kernel does not: 200 samples in a window of 10 s. Each reads three words a
/// vCPU.
const SAMPLE: Duration = Duration::from_millis(50);
/// How long to go on shipping at shutdown.
const DRAIN: Duration = Duration::from_secs(3);

/// An agent with its probes attached and its capabilities dropped.
pub struct Prepared {
    config: Config,
    sampler: Sampler,
    identity: Identity,
}

impl Prepared {
    /// Why the probes are not attached; `None` when they are.
    #[must_use]
    pub fn degraded(&self) -> Option<&str> {
        self.sampler.degraded()
    }
}

/// Does all that needs privileges, then drops them. To be called while the
/// process has one thread: the other threads would keep theirs, which is
/// logged.
///
/// # Errors
/// The data directory cannot be used, or the capabilities cannot be dropped.
/// Probes that cannot be attached are no error.
pub fn prepare(config: Config) -> anyhow::Result<Prepared> {
    let identity = Identity::load(&config.data_dir).context("loading the agent's identity")?;
    let sampler = attach(&config)?;
    Ok(Prepared {
        config,
        sampler,
        identity,
    })
}

/// A sampler with its probes attached and the process's capabilities dropped.
pub(crate) fn attach(config: &Config) -> anyhow::Result<Sampler> {
    let options = SamplerOptions {
        slots: config.slots,
        attach: config.attach,
        labels: config.labels.clone(),
        ..SamplerOptions::new(config.host.clone())
    };
    let sampler = Sampler::new(options);
    if config.drop_capabilities {
        privilege::drop_all().context("dropping capabilities")?;
        match privilege::privileged_threads()? {
            0 => tracing::info!("capabilities dropped"),
            threads => tracing::warn!(
                threads,
                "threads started before the agent was prepared keep their capabilities"
            ),
        }
    }
    memory::trim();
    Ok(sampler)
}

/// Samples and ships until `shutdown`, then ships what is left for up to 3 s.
///
/// # Errors
/// The collector's address is wrong or the sampling thread cannot be started.
pub async fn run_prepared(
    prepared: Prepared,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let Prepared {
        config,
        sampler,
        identity,
    } = prepared;
    let queue = Arc::new(Queue::new(config.buffer_bytes));
    let spool_dir = config.data_dir.join("agent/spool");
    let keeper = Keeper::start(&queue, spool_dir, config.spool_bytes);
    let keeper = keeper.context("starting the spool's thread")?;
    let channel = ship::channel(&config.collector)?;
    let shipper = tokio::spawn({
        let queue = queue.clone();
        async move { ship::ship(&queue, channel).await }
    });
    let labels = Labels {
        host: config.host.clone(),
        agent_id: identity.agent_id.clone(),
        source: sampler.source().to_owned(),
    };
    let (board, metrics) = board(&config, queue.clone(), labels).await;
    let (stop, stopped) = stop_channel();
    let sampling = std::thread::Builder::new().name("sampler".into()).spawn({
        let mut sink = Sink {
            queue: queue.clone(),
            board,
            identity,
            host: config.host,
            spool_problem: None,
        };
        move || {
            let emit = |sampler: &mut Sampler, end| {
                sink.push(sampler, end);
                ControlFlow::Continue(())
            };
            sample(sampler, config.interval, emit, &stopped);
        }
    });
    let sampling = sampling.context("starting the sampling thread")?;
    shutdown.await;
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    drop(stop);
    let joined = tokio::task::spawn_blocking(move || sampling.join()).await;
    anyhow::ensure!(matches!(joined, Ok(Ok(()))), "the sampling thread panicked");
    queue.close();
    let drained = tokio::time::timeout(DRAIN, shipper).await;
    let finished = keeper.finish(DRAIN).await;
    let left = queue.stats();
    match drained {
        Ok(_) => tracing::info!(
            acked_rows = left.acked_rows,
            dropped_rows = left.dropped_rows,
            "agent stopped"
        ),
        Err(_) => tracing::warn!(
            batches = left.batches,
            rows = left.rows,
            memory_batches = queue.memory_batches(),
            spool_finished = finished,
            dropped_rows = left.dropped_rows,
            "agent stopped with rows not shipped; the spool ships them after the next start"
        ),
    }
    Ok(())
}

/// The board of metrics, and the task that serves it where it is served.
async fn board(
    config: &Config,
    queue: Arc<Queue>,
    labels: Labels,
) -> (Arc<Board>, Option<tokio::task::JoinHandle<()>>) {
    let Labels {
        host,
        agent_id,
        source,
    } = &labels;
    tracing::info!(agent_id, host, source, "agent started");
    let board = Arc::new(Board::new(queue, labels, config.interval));
    let task = match config.metrics_listen {
        Some(address) => metrics::start(address, &config.data_dir, board.clone()).await,
        None => None,
    };
    (board, task)
}

/// [`prepare`] and [`run_prepared`] in one, for a process that already has
/// threads; those keep their capabilities.
///
/// # Errors
/// As the two.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    run_prepared(prepare(config)?, shutdown).await
}

/// The whole process: to be called first of all in `main`, before there is
/// any other thread. Ends at SIGINT or SIGTERM.
///
/// # Errors
/// As [`run`]; or no runtime can be built.
pub fn main_blocking(config: Config) -> anyhow::Result<()> {
    let prepared = prepare(config)?;
    runtime()?.block_on(async { run_prepared(prepared, interrupted()?).await })
}

/// A runtime without threads of its own: one is plenty for a batch in 10 s.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("building the runtime")
}

/// Listens from now on; ready at SIGINT or SIGTERM.
pub(crate) fn interrupted() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

struct Sink {
    queue: Arc<Queue>,
    board: Arc<Board>,
    identity: Identity,
    host: String,
    /// What was said of it last.
    spool_problem: Option<String>,
}

impl Sink {
    fn push(&mut self, sampler: &mut Sampler, end: Duration) {
        let problem = self.queue.spool_problem();
        if problem.is_some() != self.spool_problem.is_some() {
            sampler.note_spool(problem.as_deref());
            self.spool_problem = problem;
        }
        sampler.set_spool_dropped_rows(self.queue.stats().dropped_rows);
        let window = sampler.window(clock::micros(end));
        let batch = Batch {
            agent_id: self.identity.agent_id.clone(),
            host: self.host.clone(),
            epoch: self.identity.epoch,
            // Set by the queue.
            seq: 0,
            made_at_us: clock::micros(clock::wall()),
            schema_version: SCHEMA_VERSION,
            chunks: window.chunks(),
        };
        self.board.window(&batch.chunks, end);
        self.queue.push(to_wire(&batch));
        drop(batch);
        // Making and encoding a window leaves free chunks that the allocator
        // would keep: measured, 3 of 34 MB resident with 200 vCPUs.
        memory::trim();
    }
}

/// Ticks at each second of wall time; windows end at multiples of `interval`,
/// the last one when `stopped` is closed. `emit` takes each window out of the
/// sampler and says whether to go on.
pub(crate) fn sample(
    mut sampler: Sampler,
    interval: Duration,
    mut emit: impl FnMut(&mut Sampler, Duration) -> ControlFlow<()>,
    stopped: &Receiver<()>,
) {
    // Sleeping is by the monotonic clock, which may run ahead of a wall clock
    // that is being slewed.
    let slack = TICK / 10;
    sampler.tick();
    let mut last_end = clock::floor(clock::wall(), interval);
    loop {
        // What is less than the slack away is the tick that has just been.
        let next_tick = clock::floor(clock::wall() + slack, TICK) + TICK;
        if sample_until(&mut sampler, next_tick, stopped).is_break() {
            break;
        }
        sampler.tick();
        let end = clock::floor(clock::wall() + slack, interval);
        if end != last_end {
            last_end = end;
            if emit(&mut sampler, end).is_break() {
                return;
            }
        }
    }
    sampler.tick();
    let _ = emit(&mut sampler, clock::wall());
}

/// Samples until that wall time; breaks when the agent is to stop.
fn sample_until(sampler: &mut Sampler, end: Duration, stopped: &Receiver<()>) -> ControlFlow<()> {
    // A wall clock that is set back in the meantime must not stretch a second.
    let due = Instant::now() + end.saturating_sub(clock::wall()).min(TICK * 2);
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return ControlFlow::Continue(());
        }
        let step = if sampler.kernel_samples() {
            TICK
        } else {
            SAMPLE
        };
        match stopped.recv_timeout(left.min(step)) {
            Err(RecvTimeoutError::Timeout) => sampler.sample(),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::AttachPolicy;

    #[test]
    fn windows_end_while_it_runs() {
        let sampler = Sampler::new(SamplerOptions {
            attach: AttachPolicy::Off,
            ..SamplerOptions::new("here".into())
        });
        let (_stop, stopped) = stop_channel();
        let (ended, ends) = stop_channel();
        std::thread::spawn(move || {
            let emit = |sampler: &mut Sampler, end| {
                let rows = sampler.window(clock::micros(end)).hosts.len();
                ended.send(rows).unwrap();
                ControlFlow::Break(())
            };
            sample(sampler, TICK, emit, &stopped);
        });
        // Without an end of its own, it would emit only when stopped.
        assert_eq!(ends.recv_timeout(Duration::from_secs(30)), Ok(1));
    }
}

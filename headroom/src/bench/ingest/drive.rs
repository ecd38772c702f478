//! The load: every batch encoded beforehand, then shipped as fast as it is
//! taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use headroom_fleet::batch::{self, Encoded};
use headroom_fleet::model::{self, Host, Spec};
use headroom_fleet::push::{self, Link, Target};
use headroom_fleet::series::Series;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::IngestArgs;
use super::collector::Collector;

/// Length of a window, µs.
const WINDOW_US: i64 = 10_000_000;
const DAY_US: i64 = 86_400_000_000;
/// CPU threads of a host: 200 vCPUs on 64 threads.
const THREADS: u32 = 64;
/// Batches of a stream without an answer: what the collector lets through.
const IN_FLIGHT: usize = 32;
/// How often it is looked whether a kill is due.
const LOOK: Duration = Duration::from_millis(2);

/// The batches of one agent, in order.
pub type Agent = Vec<Encoded>;

/// What came of the load.
#[derive(Debug, Default)]
pub struct Driven {
    /// Batches acked by agent: always the first so many.
    pub acked: HashMap<usize, usize>,
    /// Rows in them.
    pub rows: u64,
    /// Samples in them.
    pub samples: u64,
    /// From the first batch to the last ack, s.
    pub seconds: f64,
    /// The collector's CPU time in between, s.
    pub cpu_s: f64,
    /// After each kill: until it answered again, ms.
    pub ready_ms: Vec<f64>,
}

/// All batches of the run, made on as many threads as there are CPUs.
pub fn prepare(args: &IngestArgs) -> Vec<Arc<Agent>> {
    let series = Series::sample();
    let spec = Spec {
        hosts: args.hosts,
        vms: args.vms,
        threads: THREADS,
        window_us: WINDOW_US,
        seed: args.seed,
    };
    let hosts = model::hosts(&spec, &series);
    let (epoch, most) = (now_us(), args.rows / u64::from(args.hosts) + 1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let agent = |host: &Host| agent(host, &series, (epoch, most), args);
    std::thread::scope(|scope| {
        let agent = &agent;
        let started: Vec<_> = hosts
            .chunks(hosts.len().div_ceil(threads).max(1))
            .map(|hosts| scope.spawn(move || hosts.iter().map(agent).collect::<Vec<_>>()))
            .collect();
        let made = started
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_default());
        made.map(Arc::new).collect()
    })
}

/// Windows of a host from yesterday's midnight on.
fn agent(host: &Host, series: &Series, (epoch, most): (u64, u64), args: &IngestArgs) -> Agent {
    let midnight = i64::try_from(epoch).unwrap_or(0).div_euclid(DAY_US) * DAY_US;
    let (mut made, mut rows, mut ts) = (Vec::new(), 0, midnight - DAY_US);
    for seq in 1.. {
        let batch = batch::encode(host, series, (epoch, seq), ts, args.shape.into());
        rows += batch.total();
        ts += WINDOW_US;
        made.push(batch);
        if rows >= most {
            break;
        }
    }
    made
}

/// Ships all of it, kills included.
///
/// # Errors
/// The collector rejects a batch or does not come back.
pub async fn drive(
    args: &IngestArgs,
    agents: &[Arc<Agent>],
    collector: &mut Collector,
) -> anyhow::Result<Driven> {
    let shared = Arc::new(Shared::default());
    let (stop, stopped) = watch::channel(false);
    let began = Instant::now();
    let mut streams = streams(args, agents, (&shared, &stopped), collector);
    let all = async {
        while let Some(stream) = streams.join_next().await {
            stream.context("a stream failed")??;
        }
        shared.done.store(true, Ordering::Release);
        anyhow::Ok(())
    };
    let batches = agents.iter().flat_map(|a| a.iter());
    let kills = kills(args, batches.map(Encoded::total).sum(), &shared, collector);
    let deadline = async {
        tokio::time::sleep(args.duration).await;
        let _ = stop.send(true);
        std::future::pending().await
    };
    let ((), ready_ms) = tokio::select! {
        both = async { tokio::try_join!(all, kills) } => both?,
        never = deadline => never,
    };
    let count = shared.count();
    Ok(Driven {
        acked: count.acked.clone(),
        rows: count.rows,
        samples: count.samples,
        seconds: count
            .last
            .map_or(0.0, |t| t.duration_since(began).as_secs_f64()),
        cpu_s: collector.used_s()?,
        ready_ms,
    })
}

/// What the streams count.
#[derive(Default)]
struct Shared {
    count: Mutex<Count>,
    done: AtomicBool,
}

#[derive(Default)]
struct Count {
    acked: HashMap<usize, usize>,
    rows: u64,
    samples: u64,
    last: Option<Instant>,
}

impl Shared {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acked(&self, agent: usize, batch: &Encoded) {
        let mut count = self.count();
        *count.acked.entry(agent).or_default() += 1;
        count.rows += batch.total();
        count.samples += batch.samples;
        count.last = Some(Instant::now());
    }
}

fn streams(
    args: &IngestArgs,
    agents: &[Arc<Agent>],
    (shared, stopped): (&Arc<Shared>, &watch::Receiver<bool>),
    collector: &Collector,
) -> JoinSet<anyhow::Result<()>> {
    let links: Vec<_> = (0..args.connections)
        .map(|_| Link::new(Target::File(collector.endpoint())))
        .collect();
    let mut streams = JoinSet::new();
    for (i, agent) in agents.iter().enumerate() {
        let (to, source) = mpsc::channel(1);
        streams.spawn(feed(Arc::clone(agent), to, stopped.clone()));
        let link = Arc::clone(&links[i % links.len()]);
        let shared = Arc::clone(shared);
        streams.spawn(async move {
            let acked = |batch: &Encoded| shared.acked(i, batch);
            Ok(push::ship(&link, source, IN_FLIGHT, &acked).await?)
        });
    }
    streams
}

async fn feed(
    agent: Arc<Agent>,
    to: mpsc::Sender<Encoded>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    for batch in agent.iter() {
        tokio::select! {
            _ = stop.wait_for(|s| *s) => break,
            sent = to.send(batch.clone()) => if sent.is_err() { break },
        }
    }
    Ok(())
}

/// Kills the collector whenever a further part of the rows is acked.
async fn kills(
    args: &IngestArgs,
    total: u64,
    shared: &Shared,
    collector: &mut Collector,
) -> anyhow::Result<Vec<f64>> {
    let mut ready_ms = Vec::new();
    for n in 1..=u64::from(args.kill) {
        let due = total / (u64::from(args.kill) + 1) * n;
        while shared.count().rows < due {
            if shared.done.load(Ordering::Acquire) {
                return Ok(ready_ms);
            }
            tokio::time::sleep(LOOK).await;
        }
        ready_ms.push(collector.kill().await?);
    }
    Ok(ready_ms)
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

//! `headroom lab fleet`: a fleet that does not exist, shipped to a collector.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use headroom_fleet::batch::{self, Shape};
use headroom_fleet::model::{self, Host, Spec};
use headroom_fleet::push::{self, Link, Target};
use headroom_fleet::series::Series;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::terminal::{duration, interrupted, say};

/// Hosts of one connection: a collector takes 64 streams of each.
const HOSTS_A_CONNECTION: usize = 32;
/// Batches of one host that wait for their answers.
const IN_FLIGHT: usize = 8;

/// Flags of `headroom lab fleet`.
#[derive(Args, Debug)]
pub struct FleetArgs {
    /// Number of hosts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    hosts: u32,
    /// VMs of each host
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    vms: u32,
    /// CPU threads of each host; fewer make its VMs wait
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Address of the collector, HOST:PORT
    #[arg(long, default_value = "127.0.0.1:7071")]
    collector: String,
    /// Length of a window
    #[arg(long, default_value = "10s", value_parser = duration)]
    interval: Duration,
    /// Windows that end in one interval: time runs that many times as fast
    #[arg(long, default_value_t = 1, conflicts_with = "backfill", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    speed: u32,
    /// Ships that much history up to now, as fast as it is taken, and ends;
    /// the collector stores rows older than a day and counts them as late
    #[arg(long, value_parser = duration)]
    backfill: Option<Duration>,
    /// Ends after this time; without it at an interrupt
    #[arg(long = "for", value_parser = duration)]
    duration: Option<Duration>,
    /// CPU series to follow, series_id,timestamp,value with percent; without it
    /// 24 VMs of the Azure Public Dataset
    #[arg(long)]
    series: Option<PathBuf>,
    /// The same seed gives the same fleet
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Ships until the history is there, the time is over, or an interrupt comes.
///
/// # Errors
/// The series can't be read, or the collector takes a batch for invalid.
pub async fn run(args: FleetArgs) -> anyhow::Result<()> {
    let series = Arc::new(series(&args)?);
    let spec = Spec {
        hosts: args.hosts,
        vms: args.vms,
        threads: args.threads,
        window_us: i64::try_from(args.interval.as_micros())?.max(1),
        seed: args.seed,
    };
    let (links, clock) = (links(&args), Clock::new(&args, spec.window_us)?);
    let rows = Arc::new(AtomicU64::new(0));
    let mut hosts = tokio::task::JoinSet::new();
    for (i, host) in model::hosts(&spec, &series).into_iter().enumerate() {
        let link = Arc::clone(&links[i / HOSTS_A_CONNECTION]);
        let (to, source) = mpsc::channel(IN_FLIGHT);
        let rows = Arc::clone(&rows);
        hosts.spawn(make(host, Arc::clone(&series), clock, to));
        hosts.spawn(async move {
            let acked = |b: &batch::Encoded| {
                rows.fetch_add(b.total(), Ordering::Relaxed);
            };
            Ok(push::ship(&link, source, IN_FLIGHT, &acked).await?)
        });
    }
    say(&format!(
        "shipping {} hosts to {}",
        args.hosts, args.collector
    ));
    let shipped = async {
        while let Some(host) = hosts.join_next().await {
            host.context("a host of the fleet failed")??;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        shipped = shipped => shipped?,
        () = interrupted() => {}
    }
    say(&format!("acked_rows {}", rows.load(Ordering::Relaxed)));
    Ok(())
}

fn series(args: &FleetArgs) -> anyhow::Result<Series> {
    let Some(path) = &args.series else {
        return Ok(Series::sample());
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Series::from_csv(&text).with_context(|| format!("read {}", path.display()))
}

fn links(args: &FleetArgs) -> Vec<Arc<Link>> {
    let hosts = usize::try_from(args.hosts).unwrap_or(1);
    let link = |_| Link::new(Target::At(args.collector.clone()));
    (0..hosts.div_ceil(HOSTS_A_CONNECTION)).map(link).collect()
}

/// When the windows end and are due.
#[derive(Clone, Copy)]
struct Clock {
    epoch: u64,
    first: i64,
    window_us: i64,
    windows: Option<u64>,
    /// Time between two of them; zero: at once.
    pause: Duration,
}

impl Clock {
    fn new(args: &FleetArgs, window_us: i64) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let (now, epoch) = (i64::try_from(now)?, u64::try_from(now)?);
        let windows = |d: Duration| {
            u64::try_from(d.as_micros()).unwrap_or(u64::MAX) / window_us.unsigned_abs()
        };
        Ok(match args.backfill {
            Some(history) => {
                let n = windows(history).max(1);
                let length = i64::try_from(n)?.saturating_mul(window_us);
                Self {
                    epoch,
                    first: now.saturating_sub(length).max(0),
                    window_us,
                    windows: Some(n),
                    pause: Duration::ZERO,
                }
            }
            None => {
                let windows = args.duration.map(|d| windows(d * args.speed).max(1));
                Self {
                    epoch,
                    first: now,
                    window_us,
                    windows,
                    pause: args.interval / args.speed,
                }
            }
        })
    }
}

/// Makes the batches of a host when they are due, until nobody takes them.
async fn make(
    host: Host,
    series: Arc<Series>,
    clock: Clock,
    to: mpsc::Sender<batch::Encoded>,
) -> anyhow::Result<()> {
    let (mut ts, mut due) = (clock.first, Instant::now());
    for seq in (1..).take_while(|n| clock.windows.is_none_or(|w| *n <= w)) {
        due += clock.pause;
        tokio::time::sleep_until(due).await;
        ts += clock.window_us;
        let batch = batch::encode(&host, &series, (clock.epoch, seq), ts, Shape::Full);
        if to.send(batch).await.is_err() {
            break;
        }
    }
    Ok(())
}

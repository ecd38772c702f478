//! `headroom bench ingest`: what a collector takes, over the real protocol,
//! with every row synced before its ack.

mod collector;
mod drive;
mod verify;

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use headroom_fleet::batch::Shape;
use serde::Serialize;

use crate::output::Format;
use collector::Collector;
use drive::Driven;

/// Flags of `headroom bench ingest`.
#[derive(Args, Debug)]
pub struct IngestArgs {
    /// Hosts, each with an agent's stream
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub hosts: u32,
    /// VMs of each host, of four vCPUs on average
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub vms: u32,
    /// Rows to ship; they are encoded before the clock starts
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1..=200_000_000))]
    pub rows: u64,
    /// Stops shipping after this time
    #[arg(long = "for", default_value = "60s", value_parser = crate::duration)]
    pub duration: Duration,
    /// Connections that the streams share, 64 each at most
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub connections: u32,
    /// Which rows
    #[arg(long, value_enum, default_value_t)]
    pub shape: RowShape,
    /// Kills the collector so many times (SIGKILL) under load
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub kill: u32,
    /// The same seed gives the same rows
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Form of the figures
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Which rows are shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RowShape {
    /// vcpus, vms and hosts with histograms, as an agent with probes sends
    #[default]
    Full,
    /// vcpus without histograms: 12 samples a row
    Twelve,
}

impl From<RowShape> for Shape {
    fn from(shape: RowShape) -> Self {
        match shape {
            RowShape::Full => Self::Full,
            RowShape::Twelve => Self::Twelve,
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Rows acked.
    acked_rows: u64,
    /// Of these, not in the store.
    lost_rows: u64,
    /// Rows in the store more than once.
    duplicate_rows: u64,
    /// Acked rows over the collector's CPU time from the first batch until
    /// everything is in synced Parquet and the process has ended.
    rows_per_core_s: f64,
    /// Samples over the same time.
    samples_per_core_s: f64,
    /// Numbers of a row that measure something; a histogram counts as one.
    samples_per_row: f64,
    /// Acked rows over the time from the first batch to the last ack.
    rows_per_s: f64,
    /// Collector's CPU time as above, s.
    cpu_s: f64,
    /// The part of it up to the last ack, s.
    cpu_until_acked_s: f64,
    /// From the first batch to the last ack, s.
    seconds: f64,
    /// Parquet bytes of all tables after their last merge over samples.
    bytes_per_sample: f64,
    /// The same before merging.
    bytes_per_sample_unmerged: f64,
    /// Live files before merging.
    files_unmerged: u64,
    /// Live files after it.
    files: u64,
    /// Peak resident memory of the collector, MiB.
    rss_mib: f64,
    /// Times the collector was killed.
    kills: u64,
    /// From the start of the process after a kill to its first answer, ms:
    /// median and longest.
    ready_p50_ms: Option<f64>,
    /// See `ready_p50_ms`.
    ready_max_ms: Option<f64>,
    /// Whether this program was built with optimisation.
    optimised: bool,
}

/// Measures.
///
/// # Errors
/// The collector can't be run, or does not answer.
pub async fn run(args: &IngestArgs) -> anyhow::Result<Figures> {
    anyhow::ensure!(
        args.hosts <= 64 * args.connections,
        "a connection carries 64 streams: --connections {} or more for {} hosts",
        args.hosts.div_ceil(64),
        args.hosts
    );
    let dir = tempfile::tempdir().context("make a directory for the store")?;
    let agents = drive::prepare(args);
    let mut collector = Collector::start(dir.path()).await?;
    let driven = drive::drive(args, &agents, &mut collector).await?;
    let (cpu_s, rss_mib) = collector.stop().await?;
    let found = verify::compare(dir.path(), &agents, &driven).await?;
    let size = headroom_collector::compact(dir.path()).await?;
    Ok(figures(&driven, &found, (cpu_s, rss_mib), size))
}

fn figures(
    driven: &Driven,
    found: &verify::Found,
    (cpu_s, rss_mib): (f64, f64),
    size: headroom_collector::Compacted,
) -> Figures {
    let (rows, samples) = (float(driven.rows), float(driven.samples));
    let mut ready = driven.ready_ms.clone();
    ready.sort_by(f64::total_cmp);
    Figures {
        acked_rows: driven.rows,
        lost_rows: found.lost,
        duplicate_rows: found.duplicate,
        rows_per_core_s: rows / cpu_s,
        samples_per_core_s: samples / cpu_s,
        samples_per_row: samples / rows,
        rows_per_s: rows / driven.seconds,
        cpu_s,
        cpu_until_acked_s: driven.cpu_s,
        seconds: driven.seconds,
        bytes_per_sample: float(size.bytes) / samples,
        bytes_per_sample_unmerged: float(size.bytes_before) / samples,
        files_unmerged: size.files_before,
        files: size.files,
        rss_mib,
        kills: ready.len() as u64,
        ready_p50_ms: ready.get(ready.len() / 2).copied(),
        ready_max_ms: ready.last().copied(),
        optimised: !cfg!(debug_assertions),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

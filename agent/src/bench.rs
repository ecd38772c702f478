//! `headroom bench probes`: what the probes cost, against nothing and against
//! libbpf-tools and bpftrace.

mod bpftrace;
mod costs;
mod disk;
mod game;
mod peer;
mod pingpong;
mod quantile;
mod read;
mod report;
mod rounds;

use std::ffi::OsString;
use std::path::PathBuf;
use std::{io, thread};

use crate::bench::costs::Costs;
use crate::bench::game::{Game, SAMPLES_PER_ROUND};
use crate::bench::quantile::p10;
use crate::bench::rounds::{Peers, Samples, Times};
use crate::probe::{ProbeError, ProbeOptions};

pub use read::ReadCosts;
pub use report::{LeftOut, ProbesReport, ProgramFigure};

/// Samples of each variant unless chosen otherwise: some 80 s in all,
/// a good part of it for starting peers.
pub const DEFAULT_SAMPLES: u32 = 144;
/// Where Debian's libbpf-tools puts runqlat.
pub const RUNQLAT: &str = "/usr/sbin/runqlat";
/// Where it puts biolatency.
pub const BIOLATENCY: &str = "/usr/sbin/biolatency";
/// Where distributions put bpftrace.
pub const BPFTRACE: &str = "/usr/bin/bpftrace";

/// How to measure.
#[derive(Clone, Debug)]
pub struct ProbesOptions {
    /// Samples of each variant.
    pub samples: u32,
    /// The CPU to which both threads are pinned.
    pub cpu: usize,
    /// How to attach ours.
    pub probes: ProbeOptions,
    /// A peer's program; left out if it does not exist.
    pub runqlat: PathBuf,
    /// As `runqlat`.
    pub biolatency: PathBuf,
    /// As `runqlat`.
    pub bpftrace: PathBuf,
    /// A command that runs guests for some seconds, so that each family has
    /// something to count while its programs are measured; may be empty.
    pub guests: Vec<OsString>,
}

impl Default for ProbesOptions {
    fn default() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self {
            samples: DEFAULT_SAMPLES,
            // CPU 0 takes most interrupts.
            cpu: cpus - 1,
            probes: ProbeOptions::default(),
            runqlat: PathBuf::from(RUNQLAT),
            biolatency: PathBuf::from(BIOLATENCY),
            bpftrace: PathBuf::from(BPFTRACE),
            guests: Vec::new(),
        }
    }
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Ours can't be attached or read.
    #[error("the probes can't be measured")]
    Probes(#[from] ProbeError),
    /// The ping-pong.
    #[error("the ping-pong on CPU {cpu} failed")]
    PingPong {
        /// The CPU.
        cpu: usize,
        /// Why.
        source: io::Error,
    },
    /// The reads of a disk.
    #[error("reads of a loop device failed")]
    Disk {
        /// Why.
        source: io::Error,
    },
    /// A peer.
    #[error("{program} can't be run")]
    Peer {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// No samples asked for.
    #[error("0 samples give no figure; ask for at least 1")]
    NoSamples,
    /// A bug in the bench.
    #[error("the measuring thread panicked")]
    Panicked,
}

/// Measures; takes some 80 s with the defaults. Single runs vary by 30 % on a
/// shared machine: the variants take turns and a low quantile is compared.
///
/// # Errors
/// Ours can't be attached. A peer that can't is left out.
pub fn probes(options: &ProbesOptions) -> Result<ProbesReport, BenchError> {
    if options.samples == 0 {
        return Err(BenchError::NoSamples);
    }
    // A thread of its own, for it gets pinned.
    thread::scope(|scope| scope.spawn(|| measure(options)).join())
        .unwrap_or(Err(BenchError::Panicked))
}

fn measure(options: &ProbesOptions) -> Result<ProbesReport, BenchError> {
    let mut left_out = Vec::new();
    let (mut game, no_disk) = Game::start(options.cpu)?;
    if let Some(error) = no_disk {
        left_out.push(LeftOut {
            what: "reads of a disk".to_owned(),
            reason: error.to_string(),
        });
    }
    let (mut samples, mut peers) = (Samples::default(), Peers::of(options));
    let rounds = options.samples.div_ceil(SAMPLES_PER_ROUND);
    for _ in 0..rounds {
        samples.round(&mut game, options, &mut peers)?;
    }
    samples.without(&peers);
    left_out.extend(peers.left_out());
    let costs = costs::costs(&mut game, options, &mut left_out)?;
    let mut report =
        report(&mut samples, costs, rounds * SAMPLES_PER_ROUND).ok_or(BenchError::NoSamples)?;
    report.left_out = left_out;
    Ok(report)
}

/// `None` if something that must be there has no samples.
fn report(samples: &mut Samples, costs: Costs, count: u32) -> Option<ProbesReport> {
    let nothing = p10(&mut samples.nothing.pingpong)?;
    let ratio = |times: &mut Times| p10(&mut times.pingpong).map(|time| nothing / time);
    let ns_per_read = p10(&mut samples.nothing.reads);
    let block = |times: &mut Times| Some(ns_per_read? / p10(&mut times.reads)?);
    Some(ProbesReport {
        unregistered_ratio: ratio(&mut samples.unregistered)?,
        registered_ratio: ratio(&mut samples.registered)?,
        floor_ratio: ratio(&mut samples.floor)?,
        runqlat_ratio: ratio(&mut samples.runqlat),
        biolatency_ratio: ratio(&mut samples.biolatency),
        runqlat_biolatency_ratio: ratio(&mut samples.runqlat_biolatency),
        bpftrace_ratio: ratio(&mut samples.bpftrace),
        block_ratio: block(&mut samples.registered),
        block_biolatency_ratio: block(&mut samples.biolatency),
        block_runqlat_biolatency_ratio: block(&mut samples.runqlat_biolatency),
        block_bpftrace_ratio: block(&mut samples.bpftrace),
        ns_per_switch: costs.ns_per_switch,
        ns_per_wakeup: costs.ns_per_wakeup,
        samples: count,
        ns_per_operation: nothing,
        ns_per_read,
        map_bytes: costs.map_bytes,
        source: costs.source,
        programs: costs.programs,
        read_us: costs.read_us,
        left_out: Vec::new(),
    })
}

#[cfg(test)]
mod tests;

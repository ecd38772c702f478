//! `headroom bench probes`: what the probes cost, against nothing and against
//! libbpf-tools' `runqlat`.

mod pingpong;
mod quantile;
mod runqlat;

use std::path::PathBuf;
use std::{io, thread};

use headroom_abi::tag;
use serde::Serialize;

use crate::bench::pingpong::PingPong;
use crate::bench::quantile::p10;
use crate::bench::runqlat::Runqlat;
use crate::probe::{CostMeter, EmptyPrograms, ProbeError, ProbeOptions, Probes};

/// Samples of each variant unless chosen otherwise: some 60 s in all.
pub const DEFAULT_SAMPLES: u32 = 144;
/// Where Debian's libbpf-tools puts runqlat.
pub const RUNQLAT: &str = "/usr/sbin/runqlat";

/// Samples of one variant in a row; then the next variant has its turn.
const SAMPLES_PER_ROUND: u32 = 2;
/// Round trips in a sample: 2 ms, short enough to fit between disturbances.
const OPERATIONS: u32 = 1000;
/// Round trips over which the kernel measures the programs.
const COST_OPERATIONS: u32 = 20_000;

/// How to measure.
#[derive(Clone, Debug)]
pub struct ProbesOptions {
    /// Samples of each variant.
    pub samples: u32,
    /// The CPU to which both threads are pinned.
    pub cpu: usize,
    /// How to attach ours.
    pub probes: ProbeOptions,
    /// The peer's program; left out if it does not exist.
    pub runqlat: PathBuf,
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
        }
    }
}

/// Throughput of the ping-pong with something attached, as a part of the
/// throughput with nothing attached; each at p10 of the time an operation took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbesReport {
    /// Ours, both threads unregistered.
    pub unregistered_ratio: f64,
    /// Ours, both threads registered.
    pub registered_ratio: f64,
    /// Two programs that do nothing at the same hooks: what the kernel itself
    /// takes, the best that any tool with these hooks can reach.
    pub floor_ratio: f64,
    /// libbpf-tools' runqlat; `None` where it is not installed.
    pub runqlat_ratio: Option<f64>,
    /// Mean run of our switch program, both threads registered, ns; measured
    /// apart, with the kernel's own measuring included.
    pub ns_per_switch: f64,
    /// The same of our wake-up program.
    pub ns_per_wakeup: f64,
    /// Samples of each variant.
    pub samples: u32,
    /// An operation (two wake-ups, two switches) with nothing attached, ns.
    pub ns_per_operation: f64,
    /// Memory of our maps.
    pub map_bytes: u64,
    /// `tp_btf` or `raw_tp`.
    pub source: &'static str,
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
    /// The peer.
    #[error("{program} can't be run")]
    Runqlat {
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

/// Measures; takes some 60 s with the defaults. Single runs vary by 30 % on a
/// shared machine: the variants take turns and a low quantile is compared.
///
/// # Errors
/// Ours or the peer can't be attached.
pub fn probes(options: &ProbesOptions) -> Result<ProbesReport, BenchError> {
    if options.samples == 0 {
        return Err(BenchError::NoSamples);
    }
    // A thread of its own, for it gets pinned.
    thread::scope(|scope| scope.spawn(|| measure(options)).join())
        .unwrap_or(Err(BenchError::Panicked))
}

/// Times of an operation, ns, by what was attached.
#[derive(Default)]
struct Samples {
    nothing: Vec<f64>,
    floor: Vec<f64>,
    unregistered: Vec<f64>,
    registered: Vec<f64>,
    runqlat: Vec<f64>,
}

fn measure(options: &ProbesOptions) -> Result<ProbesReport, BenchError> {
    let game = &mut Game {
        pingpong: start(options.cpu)?,
        cpu: options.cpu,
    };
    let mut samples = Samples::default();
    let rounds = options.samples.div_ceil(SAMPLES_PER_ROUND);
    for _ in 0..rounds {
        game.play(&mut samples.nothing)?;
        let empty = EmptyPrograms::attach()?;
        game.play(&mut samples.floor)?;
        drop(empty);
        ours(game, options, &mut samples)?;
        if options.runqlat.exists() {
            let peer = Runqlat::start(&options.runqlat)?;
            game.play(&mut samples.runqlat)?;
            peer.stop()?;
        }
    }
    let (source, map_bytes, ns_per_switch, ns_per_wakeup) = costs(game, options)?;
    let nothing = p10(&mut samples.nothing).ok_or(BenchError::NoSamples)?;
    let ratio = |times: &mut Vec<f64>| p10(times).map(|time| nothing / time);
    Ok(ProbesReport {
        unregistered_ratio: ratio(&mut samples.unregistered).ok_or(BenchError::NoSamples)?,
        registered_ratio: ratio(&mut samples.registered).ok_or(BenchError::NoSamples)?,
        floor_ratio: ratio(&mut samples.floor).ok_or(BenchError::NoSamples)?,
        runqlat_ratio: ratio(&mut samples.runqlat),
        ns_per_switch,
        ns_per_wakeup,
        samples: rounds * SAMPLES_PER_ROUND,
        ns_per_operation: nothing,
        map_bytes,
        source,
    })
}

fn start(cpu: usize) -> Result<PingPong, BenchError> {
    PingPong::start(cpu).map_err(|source| BenchError::PingPong { cpu, source })
}

struct Game {
    pingpong: PingPong,
    cpu: usize,
}

impl Game {
    /// Some samples, after a warm-up.
    fn play(&mut self, times: &mut Vec<f64>) -> Result<(), BenchError> {
        self.run(OPERATIONS / 2)?;
        for _ in 0..SAMPLES_PER_ROUND {
            times.push(self.run(OPERATIONS)?);
        }
        Ok(())
    }

    /// Time of one of `operations`, ns.
    fn run(&mut self, operations: u32) -> Result<f64, BenchError> {
        let time = self.pingpong.run(operations);
        let time = time.map_err(|source| BenchError::PingPong {
            cpu: self.cpu,
            source,
        })?;
        Ok(time.as_secs_f64() * 1e9 / f64::from(operations))
    }
}

fn ours(game: &mut Game, options: &ProbesOptions, samples: &mut Samples) -> Result<(), BenchError> {
    let mut probes = Probes::attach(&options.probes)?;
    game.play(&mut samples.unregistered)?;
    register(game, &mut probes)?;
    game.play(&mut samples.registered)
}

/// Makes the two threads vCPUs of two VMs. Never released: all of it goes with
/// the probes.
fn register(game: &Game, probes: &mut Probes) -> Result<(), BenchError> {
    for (vm, tid) in (1..).zip(game.pingpong.tids()) {
        let _slot = probes.register(tid, tag::of(vm, tag::role::VCPU))?;
    }
    Ok(())
}

/// Source, map bytes, ns a switch, ns a wake-up.
fn costs(
    game: &mut Game,
    options: &ProbesOptions,
) -> Result<(&'static str, u64, f64, f64), BenchError> {
    let mut probes = Probes::attach(&options.probes)?;
    register(game, &mut probes)?;
    let meter = CostMeter::start()?;
    game.run(COST_OPERATIONS)?;
    let costs = probes.costs()?;
    drop(meter);
    let mean = |hook: &str| {
        let cost = costs.iter().find(|cost| cost.hook == hook && cost.runs > 0);
        #[expect(clippy::cast_precision_loss, reason = "some 10^5 runs")]
        cost.map_or(f64::NAN, |cost| {
            cost.time.as_secs_f64() * 1e9 / cost.runs as f64
        })
    };
    Ok((
        probes.source(),
        probes.map_bytes(),
        mean("sched_switch"),
        mean("sched_waking"),
    ))
}

#[cfg(test)]
mod tests;

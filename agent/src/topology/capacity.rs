//! Capacity of a CPU thread in one unit for all hosts of a fleet.
//!
//! `capacity = share of the core × frequency / 3000 MHz`, so that 1.0 is a
//! whole core of 3000 MHz. It is a prior for hosts whose true figures nobody
//! has measured: work per cycle differs between generations too (and more
//! than frequency between some), which no file of the kernel tells.

use super::Cpu;

/// Frequency of the core that counts 1.0, MHz.
pub const REFERENCE_MHZ: f64 = 3000.0;

/// Throughput of a core whose threads are all busy, against one alone on it:
/// 1178/1024. It is the scheduler's own prior, `smt_gain` ("15%") of
/// `include/linux/topology.h` from 2.6.32 on, until commit 765d0af19f5f
/// (5.0) removed the figure together with its last user. Measured gains run
/// from below 1.0 (dense arithmetic) to about 1.4 (waiting for memory).
pub const SMT_GAIN: f64 = 1178.0 / 1024.0;

/// `cpu_capacity` of a host's strongest CPU (`SCHED_CAPACITY_SCALE`).
const FULL: f64 = 1024.0;

/// What a thread can do while its siblings are busy, and what that was made
/// of.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Cores of [`REFERENCE_MHZ`].
    pub cores: f64,
    /// Its parts, joined by `+`.
    pub source: String,
}

/// Capacity of each CPU, in their order; `None` for one that is offline.
///
/// Between the CPUs of a host `cpu_capacity` decides, which includes work per
/// cycle where cores differ (arm64, hybrid x86), and the frequency of the
/// host's fastest CPU sets the scale; without that file each CPU's own.
#[must_use]
pub fn of(cpus: &[Cpu]) -> Vec<Option<Capacity>> {
    let fastest = cpus
        .iter()
        .filter_map(mhz)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    cpus.iter()
        .map(|cpu| cpu.online.then(|| one(cpu, fastest)))
        .collect()
}

fn one(cpu: &Cpu, fastest: Option<(f64, &'static str)>) -> Capacity {
    let threads = cpu.smt_siblings.len().max(1);
    let mut parts = Vec::new();
    let mut cores = 1.0;
    if threads > 1 {
        cores *= SMT_GAIN / threads as f64;
        parts.push("smt");
    }
    let frequency = match cpu.cpu_capacity {
        Some(relative) => {
            cores *= f64::from(relative) / FULL;
            parts.push("cpu_capacity");
            fastest
        }
        None => mhz(cpu),
    };
    if let Some((mhz, source)) = frequency {
        cores *= mhz / REFERENCE_MHZ;
        parts.push(source);
    }
    Capacity {
        cores,
        source: parts.join("+"),
    }
}

fn mhz(cpu: &Cpu) -> Option<(f64, &'static str)> {
    let max = cpu.mhz_max.map(|mhz| (mhz, "mhz_max"));
    max.or(cpu.mhz_base.map(|mhz| (mhz, "mhz_base")))
}

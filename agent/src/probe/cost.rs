//! What the programs themselves cost, by the kernel's own clock.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::sys::{Stats, enable_stats};

use crate::probe::Probes;
use crate::probe::error::ProbeError;
use crate::probe::family;

/// Runs of one program while a [`CostMeter`] was alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its family.
    pub family: &'static str,
    /// The tracepoint.
    pub hook: String,
    /// Times it ran.
    pub runs: u64,
    /// Time it took, all runs together; measuring adds some 20 ns to each.
    pub time: Duration,
}

/// Keeps `kernel.bpf_stats_enabled` on while it lives. It slows every BPF
/// program of the host: never keep one outside of a bench.
#[derive(Debug)]
pub struct CostMeter {
    _enabled: OwnedFd,
}

impl CostMeter {
    /// Switches the measuring on.
    ///
    /// # Errors
    /// The kernel refused: it needs `CAP_SYS_ADMIN`.
    pub fn start() -> Result<Self, ProbeError> {
        let enabled =
            enable_stats(Stats::RunTime).map_err(|source| ProbeError::Stats { source })?;
        Ok(Self { _enabled: enabled })
    }
}

impl Probes {
    /// Cost of each attached program so far, summed over all CPUs.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn costs(&self) -> Result<Vec<ProgramCost>, ProbeError> {
        let mut costs = Vec::new();
        for (name, program) in self
            .programs
            .programs()
            .filter(|(_, program)| program.fd().is_ok())
        {
            let info = program
                .info()
                .map_err(|source| ProbeError::ProgramInfo { source })?;
            let hook = name.trim_start_matches("raw_");
            costs.push(ProgramCost {
                family: family::of_hook(hook),
                hook: hook.to_owned(),
                runs: info.run_count(),
                time: info.run_time(),
            });
        }
        Ok(costs)
    }
}

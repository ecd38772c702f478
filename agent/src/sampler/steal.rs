//! Time that a hypervisor below takes from this host.

mod hypervisor;

use headroom_core::batch::Chunk;
use headroom_core::rows::{CpuStealRow, HostStealRow};

use super::observe::{FamilyStatus, Observer, Scene};
use super::rows::{Frame, count, int};
use super::stat::NS_PER_TICK;
use crate::clock::monotonic_ns;
use crate::files;
use hypervisor::{Hypervisor, StealClock};

/// Reads `/proc/stat` once a window.
pub struct Steal {
    hypervisor: Option<Hypervisor>,
    base: Reading,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    at_ns: u64,
    /// Number and cumulative steal of each online CPU.
    cpus: Vec<(u32, u64)>,
}

impl Steal {
    /// Looks what the host runs on.
    pub fn new() -> Self {
        Self {
            hypervisor: hypervisor::detect(),
            base: read(),
        }
    }

    /// Why there is no steal to tell.
    fn unavailable(&self, now: &Reading) -> Option<String> {
        let Some(hypervisor) = &self.hypervisor else {
            return Some("bare metal: there is no hypervisor to take time".to_owned());
        };
        let none_yet = now.cpus.iter().all(|(_, steal)| *steal == 0);
        match hypervisor.steal_clock {
            StealClock::Yes => None,
            StealClock::No => Some(format!(
                "{} does not offer a steal clock to this VM",
                hypervisor.name
            )),
            StealClock::Unknown if none_yet => Some(format!(
                "{} has told no steal since boot: it may not tell any",
                hypervisor.name
            )),
            StealClock::Unknown => None,
        }
    }
}

impl Observer for Steal {
    fn status(&self) -> Vec<FamilyStatus> {
        let reason = self.unavailable(&self.base);
        vec![FamilyStatus {
            family: "steal",
            source: reason.is_none().then(|| "/proc/stat".to_owned()),
            reason,
        }]
    }

    fn window(&mut self, frame: &Frame<'_>, _: &Scene<'_>) -> Vec<Chunk> {
        let now = read();
        let reason = self.unavailable(&now);
        let cpus = match reason {
            Some(_) => Vec::new(),
            None => cpu_rows(frame, &self.base, &now),
        };
        let window_ns = now.at_ns.saturating_sub(self.base.at_ns);
        let steal_ns = reason
            .is_none()
            .then(|| cpus.iter().map(|c| c.steal_ns).sum::<i64>());
        let provisioned = window_ns.saturating_mul(now.cpus.len() as u64);
        let row = HostStealRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            window_ns: int(window_ns),
            threads: count(now.cpus.len()),
            steal_ns,
            steal_ratio: steal_ns
                .filter(|_| provisioned > 0)
                .map(|ns| ns as f64 / provisioned as f64),
            virtualised: i64::from(self.hypervisor.is_some()),
            hypervisor: self.hypervisor.as_ref().map(|h| h.name.clone()),
            reason,
        };
        self.base = now;
        vec![Chunk::of(&[row]), Chunk::of(&cpus)]
    }
}

fn read() -> Reading {
    Reading {
        at_ns: monotonic_ns(),
        cpus: files::text("/proc/stat")
            .map(|text| parse(&text))
            .unwrap_or_default(),
    }
}

/// Steal is the eighth figure of a `cpuN` line, in ticks.
fn parse(stat: &str) -> Vec<(u32, u64)> {
    let cpu = |line: &str| {
        let mut fields = line.strip_prefix("cpu")?.split(' ');
        let number = fields.next()?.parse().ok()?;
        let ticks: u64 = fields.nth(7)?.parse().ok()?;
        Some((number, ticks.saturating_mul(NS_PER_TICK)))
    };
    stat.lines().filter_map(cpu).collect()
}

/// CPUs that were online at both ends.
fn cpu_rows(frame: &Frame<'_>, base: &Reading, now: &Reading) -> Vec<CpuStealRow> {
    let before = |cpu| base.cpus.iter().find(|(number, _)| *number == cpu);
    let row = |(cpu, steal): &(u32, u64)| {
        Some(CpuStealRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            cpu: i64::from(*cpu),
            window_ns: int(now.at_ns.saturating_sub(base.at_ns)),
            steal_ns: int(steal.saturating_sub(before(*cpu)?.1)),
        })
    };
    now.cpus.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests;

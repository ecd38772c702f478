//! The probes as a [`ThreadSource`].

use headroom_abi::sched::CpuStats;
use headroom_core::hist::Hist;

use super::{Detail, HostSource, Reading, RegisterError, ThreadSource};
use crate::probe::{self, Activity, ProbeError, Probes, Slot, Snapshot};
use crate::sampler::FamilyStatus;

impl ThreadSource for Probes {
    type Handle = Slot;

    fn name(&self) -> &'static str {
        self.source()
    }

    fn register(&mut self, _pid: u32, tid: u32, tag: u32) -> Result<Slot, RegisterError> {
        Self::register(self, tid, tag).map_err(|error| match error {
            ProbeError::SlotsFull { .. } => RegisterError::Full,
            other => RegisterError::Source(Box::new(other)),
        })
    }

    fn release(&mut self, slot: Slot) {
        if let Err(error) = Self::release(self, slot) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "slot not released and lost until the agent restarts");
        }
    }

    fn read(&self, slot: &Slot) -> Option<Reading> {
        Some(Self::read(self, slot).into())
    }
}

impl HostSource for Probes {
    fn cpus(&self) -> Vec<CpuStats> {
        Self::cpus(self)
    }

    fn blamed(&self, victim: u16) -> Vec<(u16, u64)> {
        Self::blamed(self, victim)
    }

    fn active(&self, slot: &Slot) -> Activity {
        Self::active(self, slot)
    }

    fn take_snapshots(&mut self) -> Option<Vec<Snapshot>> {
        Self::take_snapshots(self)
    }

    fn active_in(&self, slot: &Slot, snapshot: &Snapshot) -> Activity {
        Self::active_in(self, slot, snapshot)
    }

    fn families(&self) -> Vec<FamilyStatus> {
        let status = |family: &probe::Attached| FamilyStatus {
            family: family.family,
            source: family.source.map(str::to_owned),
            reason: family.reason.clone(),
        };
        Self::families(self).iter().map(status).collect()
    }

    fn slots_used(&self) -> usize {
        Self::slots_used(self)
    }

    fn slots_capacity(&self) -> usize {
        Self::slots_capacity(self)
    }
}

impl From<probe::Reading> for Reading {
    fn from(r: probe::Reading) -> Self {
        let mut hist = Hist::from_counts(r.hist_wake);
        hist.merge(&Hist::from_counts(r.hist_preempt));
        let detail = Detail {
            ready_wake_ns: r.ready_wake_ns,
            ready_preempt_ns: r.ready_preempt_ns,
            ready_open_ns: r.ready_open_ns,
            ready_max_ns: r.ready_max_ns,
            switches: r.switches,
            cpu_migrations: r.cpu_migrations,
            node_migrations: r.node_migrations,
            throttled_ns: r.throttled_ns,
            blame_ns: r.blame_ns,
            open_vms: r.open_vms,
            host_pid: r.host_pid,
            numa_moves: r.numa_moves,
            hist,
        };
        Self {
            at_ns: r.at_ns,
            run_ns: r.run_ns,
            ready_ns: r.ready_wake_ns + r.ready_preempt_ns,
            clock_skews: Some(r.clock_skews),
            detail: Some(Box::new(detail)),
        }
    }
}

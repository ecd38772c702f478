//! The probes as far as they go, `schedstat` for the rest.

use headroom_abi::sched::CpuStats;

use crate::probe::{Activity, Snapshot};
use crate::sampler::FamilyStatus;

use super::{Reading, RegisterError, Schedstat, SchedstatThread, ThreadSource};

/// What the probes tell beside single threads.
pub trait HostSource: ThreadSource {
    /// Totals of each CPU over all tasks, cumulative.
    fn cpus(&self) -> Vec<CpuStats>;
    /// Time that a VM waited while each other one ran, by their numbers,
    /// cumulative; see [`Detail::open_vms`](super::Detail::open_vms).
    fn blamed(&self, victim: u16) -> Vec<(u16, u64)>;
    /// Whether a thread runs or is ready now.
    fn active(&self, handle: &Self::Handle) -> Activity;
    /// What all threads did at regular moments since the last call, oldest
    /// first; `None` while nobody notes that but who asks [`Self::active`].
    fn take_snapshots(&mut self) -> Option<Vec<Snapshot>>;
    /// What a thread did at such a moment.
    fn active_in(&self, handle: &Self::Handle, snapshot: &Snapshot) -> Activity;
    /// How far each family of programs got.
    fn families(&self) -> Vec<FamilyStatus>;
    /// Slots in use.
    fn slots_used(&self) -> usize;
    /// Slots there are.
    fn slots_capacity(&self) -> usize;
}

/// Probes with a fallback for each thread.
pub struct Mixed<P> {
    probes: Option<P>,
    fallback: Schedstat,
    failures: u64,
}

/// A thread registered at one of the two.
pub enum MixedThread<H> {
    /// Has a slot.
    Probes(H),
    /// Measured by `schedstat`.
    Schedstat(SchedstatThread),
}

impl<P: HostSource> Mixed<P> {
    /// With the probes, or without.
    pub fn new(probes: Option<P>) -> Self {
        Self {
            probes,
            fallback: Schedstat,
            failures: 0,
        }
    }

    /// The probes, where they are attached.
    pub const fn probes(&self) -> Option<&P> {
        self.probes.as_ref()
    }

    /// Whether a thread runs or is ready now, or was at the moment of a
    /// snapshot; `None` for one without a slot.
    pub fn active(
        &self,
        thread: &MixedThread<P::Handle>,
        snapshot: Option<&Snapshot>,
    ) -> Option<Activity> {
        let (probes, MixedThread::Probes(handle)) = (self.probes.as_ref()?, thread) else {
            return None;
        };
        Some(match snapshot {
            Some(snapshot) => probes.active_in(handle, snapshot),
            None => probes.active(handle),
        })
    }

    /// As [`HostSource::take_snapshots`].
    pub fn take_snapshots(&mut self) -> Option<Vec<Snapshot>> {
        self.probes.as_mut()?.take_snapshots()
    }

    /// Whether a thread without a slot could get one.
    pub fn has_free_slot(&self) -> bool {
        self.probes
            .as_ref()
            .is_some_and(|p| p.slots_used() < p.slots_capacity())
    }

    /// What measures this thread, as in the rows' `source` column.
    pub fn source_of(&self, thread: &MixedThread<P::Handle>) -> &'static str {
        match thread {
            MixedThread::Probes(_) => self.name(),
            MixedThread::Schedstat(_) => self.fallback.name(),
        }
    }

    fn register_fallback(
        &mut self,
        pid: u32,
        tid: u32,
    ) -> Result<MixedThread<P::Handle>, RegisterError> {
        self.fallback
            .register(pid, tid, 0)
            .map(MixedThread::Schedstat)
    }
}

impl<P: HostSource> ThreadSource for Mixed<P> {
    type Handle = MixedThread<P::Handle>;

    fn name(&self) -> &'static str {
        self.probes
            .as_ref()
            .map_or_else(|| self.fallback.name(), ThreadSource::name)
    }

    fn register(&mut self, pid: u32, tid: u32, tag: u32) -> Result<Self::Handle, RegisterError> {
        let Some(probes) = &mut self.probes else {
            return self.register_fallback(pid, tid);
        };
        match probes.register(pid, tid, tag) {
            Ok(handle) => return Ok(MixedThread::Probes(handle)),
            Err(RegisterError::Gone) => return Err(RegisterError::Gone),
            // Seen on every host that is full: the host row counts them.
            Err(RegisterError::Full) => {}
            Err(RegisterError::Source(error)) => {
                // Powers of two: logged at once, then summarised.
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    let error: &dyn std::error::Error = error.as_ref();
                    tracing::warn!(
                        tid,
                        failures = self.failures,
                        error,
                        "thread not registered, measured by schedstat"
                    );
                }
            }
        }
        self.register_fallback(pid, tid)
    }

    fn release(&mut self, handle: Self::Handle) {
        match (handle, &mut self.probes) {
            (MixedThread::Probes(handle), Some(probes)) => probes.release(handle),
            (MixedThread::Schedstat(handle), _) => self.fallback.release(handle),
            (MixedThread::Probes(_), None) => {}
        }
    }

    fn read(&self, handle: &Self::Handle) -> Option<Reading> {
        match handle {
            MixedThread::Probes(handle) => self.probes.as_ref()?.read(handle),
            MixedThread::Schedstat(handle) => self.fallback.read(handle),
        }
    }
}

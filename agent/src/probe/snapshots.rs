//! What the vCPUs did at regular moments, noted by a timer in the kernel.
//!
//! The agent itself gets a CPU of a busy host mostly when the guests sleep:
//! what it would see at such moments is no fair sample.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::perf_event::{
    PerfEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::util::online_cpus;
use headroom_abi::snapshot::{
    AT_NS, COVERED, HEAD, HEADER, PERIOD_NS, RING, SEQ, SLOTS, SLOTS_PER_WORD, activity, start,
    stride,
};

use crate::clock::monotonic_ns;
use crate::probe::error::ProbeError;
use crate::probe::family::{self, Attached};
use crate::probe::map::Mapped;
use crate::probe::slots::Slot;

/// Without a snapshot for so long, its CPU is off line.
const STALL_NS: u64 = 2_000_000_000;
/// What it means that the kernel does not sample.
pub const BIASED: &str =
    "sampled by the agent instead, which sees too little on a host whose guests leave it no CPU";

/// What a thread did at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Ran or was ready.
    Active,
    /// Slept or was throttled, or was gone.
    Inactive,
    /// Registered, but no event of it was seen.
    Unknown,
    /// Not registered by then.
    Absent,
}

impl Activity {
    /// Of the abi's number.
    pub(super) const fn of(number: u64) -> Self {
        match number {
            activity::ACTIVE => Self::Active,
            activity::INACTIVE => Self::Inactive,
            activity::UNKNOWN => Self::Unknown,
            _ => Self::Absent,
        }
    }
}

/// What all registered vCPUs did at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot before, `CLOCK_MONOTONIC` ns.
    pub from_ns: u64,
    /// The moment, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    bits: Vec<u64>,
}

impl Snapshot {
    /// Of a thread with a slot.
    pub(super) fn of(&self, slot: &Slot) -> Activity {
        // Begun before the thread was registered: of another one.
        if self.at_ns < slot.registered_ns {
            return Activity::Absent;
        }
        self.of_number(slot.number.into())
    }

    /// Of a slot by its number.
    pub(crate) fn of_number(&self, number: u32) -> Activity {
        let (word, place) = (number / SLOTS_PER_WORD, number % SLOTS_PER_WORD);
        let bits = self.bits.get(word as usize).copied().unwrap_or(0);
        Activity::of((bits >> (2 * place)) & 3)
    }

    /// With these slots, by [`activity`].
    #[cfg(test)]
    pub(crate) fn made(span: (u64, u64), slots: &[(u32, u64)]) -> Self {
        let bits = slots.iter().map(|(n, activity)| activity << (2 * n));
        Self {
            from_ns: span.0,
            at_ns: span.1,
            bits: vec![bits.sum()],
        }
    }
}

/// The ring of snapshots.
pub struct Snapshots {
    words: Mapped<u64>,
    control: Array<MapData, u64>,
    stride: u32,
    cpu: u32,
    covered: u32,
    /// Number of the next one to read.
    next: u64,
    /// The last one read.
    last_ns: u64,
    lost: u64,
}

impl Snapshots {
    /// On the maps of a loaded object, for slot numbers below `slots`.
    pub(super) fn new(
        words: Mapped<u64>,
        control: Array<MapData, u64>,
        slots: u32,
        cpu: u32,
    ) -> Self {
        Self {
            words,
            control,
            stride: stride(slots),
            cpu,
            covered: 0,
            next: 0,
            last_ns: monotonic_ns(),
            lost: 0,
        }
    }

    /// From now on slots up to number `highest` are looked at.
    ///
    /// # Errors
    /// The kernel refused the update.
    pub(super) fn cover(&mut self, highest: u16) -> Result<(), ProbeError> {
        let covered = u32::from(highest) + 1;
        if covered != self.covered {
            let set = self.control.set(COVERED, u64::from(covered), 0);
            set.map_err(|source| ProbeError::Map {
                operation: "setting the end of the slots in",
                source,
            })?;
            self.covered = covered;
        }
        Ok(())
    }

    /// Those made since the last call, oldest first. One that was overwritten
    /// is counted as lost and its time is nobody's.
    pub(super) fn take(&mut self) -> Vec<Snapshot> {
        let made = self.words.value(HEAD as usize);
        let first = self.next.max(made.saturating_sub(RING.into()));
        let mut lost = first - self.next;
        let mut before = (lost == 0).then_some(self.last_ns);
        let mut taken = Vec::new();
        for number in first..made {
            let Some((at_ns, bits)) = self.copy(number) else {
                lost += 1;
                before = None;
                continue;
            };
            taken.push(Snapshot {
                from_ns: before.unwrap_or_else(|| at_ns.saturating_sub(PERIOD_NS)),
                at_ns,
                bits,
            });
            before = Some(at_ns);
            self.last_ns = at_ns;
        }
        self.next = made;
        let total = self.lost + lost;
        // At powers of two: logged at once, then summarised.
        if total.checked_ilog2() != self.lost.checked_ilog2() {
            tracing::warn!(
                lost = total,
                made,
                "snapshots of vcpus overwritten before they were read"
            );
        }
        self.lost = total;
        taken
    }

    /// Whether the timer is silent.
    pub(super) fn stalled(&self) -> bool {
        monotonic_ns().saturating_sub(self.last_ns) > STALL_NS
    }

    /// What is wrong, for the family's row.
    pub(super) fn problem(&self) -> Option<String> {
        if self.stalled() {
            return Some(format!(
                "no snapshot for 2 s, CPU {} may be off line; {BIASED}",
                self.cpu
            ));
        }
        (self.lost > 0).then(|| {
            format!(
                "{} of {} snapshots were overwritten before the agent came to read them",
                self.lost, self.next
            )
        })
    }

    /// Time and bits of a snapshot; `None` when it was overwritten.
    fn copy(&self, number: u64) -> Option<(u64, Vec<u64>)> {
        let start = start(number, self.stride);
        let at = |word: u32| (start + word) as usize;
        self.words.under(at(SEQ), number + 1, |word| {
            // Half overwritten it may say anything.
            let most = (self.stride - HEADER) * SLOTS_PER_WORD;
            let slots = u32::try_from(word(at(SLOTS))).map_or(most, |n| n.min(most));
            let bits = (0..slots.div_ceil(SLOTS_PER_WORD)).map(|n| word(at(HEADER + n)));
            (word(at(AT_NS)), bits.collect())
        })
    }
}

/// Loads the program and starts its timer on the first CPU that is on line.
///
/// # Errors
/// What the kernel refused.
pub(super) fn attach(ebpf: &mut Ebpf) -> Result<u32, ProbeError> {
    let cpus = online_cpus().map_err(|(path, source)| ProbeError::Topology {
        path: path.to_owned(),
        source,
    })?;
    let cpu = cpus.into_iter().min().unwrap_or(0);
    let program = ebpf
        .program_mut(family::CONCURRENCY.hooks[0])
        .ok_or_else(|| ProbeError::MissingPart {
            what: format!("program {}", family::CONCURRENCY.hooks[0]),
        })?;
    let attached = <&mut PerfEvent>::try_from(program).and_then(|program| {
        program.load()?;
        let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        let period = SamplePolicy::Period(PERIOD_NS);
        let attached = program.attach(clock, scope, period, false).map(drop);
        if attached.is_err() {
            // The error is the one to tell.
            drop(program.unload());
        }
        attached
    });
    let hook = family::CONCURRENCY.hooks[0];
    attached.map_err(|source| family::refused(PERF_EVENT, hook, source))?;
    Ok(cpu)
}

/// The family's row.
pub(super) fn status(attached: &Result<Snapshots, ProbeError>) -> Attached {
    match attached {
        Ok(_) => Attached {
            family: family::CONCURRENCY.name,
            source: Some(PERF_EVENT),
            reason: None,
        },
        Err(error) => Attached {
            source: Some("agent"),
            ..Attached::failed(&family::CONCURRENCY, error, Some(BIASED))
        },
    }
}

const PERF_EVENT: &str = "perf_event";

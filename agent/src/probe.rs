//! The probes: BPF programs that count, for each registered thread, how long it
//! ran and how long it waited for a CPU.
//!
//! **Invariant:** nothing but this module talks to the kernel's BPF. Counters
//! are cumulative and never reset, so a reader that misses a tick loses
//! nothing. Reading is a memory read of a shared mapping, without a system
//! call a thread.

mod btf;
mod caps;
mod cost;
#[cfg(feature = "bpf-log")]
mod diagnostics;
mod error;
mod load;
mod map;
mod net;
mod node;
mod object;
mod reading;
mod slots;
mod unknown;

use std::time::Instant;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use headroom_abi::sched::{CpuStats, PIDS_PER_ELEMENT, PidSlots, SlotStats, state};

pub use cost::{CostMeter, ProgramCost};
pub use error::{HeaderError, ProbeError};
pub use load::EmptyPrograms;
pub use net::NetDrops;
pub use object::{Header, check as check_object, embedded};
pub use reading::{Reading, ThreadState};
pub use slots::Slot;

use crate::probe::map::{Mapped, PidElement, SlotRecord};
use crate::probe::reading::Floor;
use crate::probe::slots::Table;
use crate::probe::unknown::Baseline;

/// Threads that can be registered unless configured otherwise: 7 MB of map,
/// enough for the vCPUs of the largest hosts.
pub const DEFAULT_SLOTS: u16 = 4096;

/// Which kind of program to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachPolicy {
    /// `tp_btf`, else raw tracepoints.
    #[default]
    Auto,
    /// BTF tracepoints or nothing.
    TpBtf,
    /// Raw tracepoints or nothing.
    RawTp,
    /// No probes at all.
    Off,
}

/// How to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Threads that can be registered at the same time.
    pub slots: u16,
    /// Which kind of program.
    pub attach: AttachPolicy,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            slots: DEFAULT_SLOTS,
            attach: AttachPolicy::Auto,
        }
    }
}

/// Attached programs and their maps; detached when dropped.
///
/// Works on after the process gave up its capabilities: all it needs is open.
pub struct Probes {
    source: &'static str,
    pids: Array<MapData, PidElement>,
    records: Array<MapData, SlotRecord>,
    slots: Mapped<SlotStats>,
    cpus: Mapped<CpuStats>,
    table: Table,
    numa_nodes: usize,
    map_bytes: u64,
    #[cfg(feature = "bpf-log")]
    _diagnostics: Option<diagnostics::Diagnostics>,
    // Holds the links; last, so that it is dropped when nothing reads any more.
    programs: Ebpf,
}

impl Probes {
    /// Loads the embedded object and attaches its programs.
    ///
    /// # Errors
    /// What is missing (capability, kernel feature, memory) or what the kernel
    /// refused, and the remedy.
    pub fn attach(options: &ProbeOptions) -> Result<Self, ProbeError> {
        load::attach(options)
    }

    /// `tp_btf` or `raw_tp`.
    #[must_use]
    pub const fn source(&self) -> &'static str {
        self.source
    }

    /// Starts to count a thread: its id in the initial pid namespace.
    ///
    /// # Errors
    /// No slot is free, the thread is registered already, its id is beyond the
    /// pid map, or the kernel refused the update.
    pub fn register(&mut self, tid: u32) -> Result<Slot, ProbeError> {
        let current = self.pid_element(tid)?;
        let lane = lane(tid);
        if current.slot[lane] != 0 {
            return Err(ProbeError::AlreadyRegistered { tid });
        }
        let number = self.table.take(Instant::now())?;
        let mut element = current;
        element.slot[lane] = number;
        let slot = Slot {
            number,
            tid,
            baseline: Baseline::of(tid),
            floor: Floor::default(),
        };
        let record = SlotRecord::registered(reading::now_ns(), unknown::cpu(tid));
        // The record first: a program that sees the pid must find it ready.
        let written = self
            .records
            .set(u32::from(number), record, 0)
            .and_then(|()| {
                self.pids
                    .set(tid / PIDS_PER_ELEMENT, PidElement(element), 0)
            });
        if let Err(source) = written {
            self.table.put_back(number);
            return Err(ProbeError::Map {
                operation: "registering a thread in",
                source,
            });
        }
        Ok(slot)
    }

    /// Stops to count a thread. Its slot is given out again only after
    /// one second of rest, when no program can still write to it.
    ///
    /// # Errors
    /// The kernel refused the update; the slot is then lost until the probes
    /// are attached anew.
    pub fn release(&mut self, slot: Slot) -> Result<(), ProbeError> {
        let mut element = self.pid_element(slot.tid)?;
        let lane = lane(slot.tid);
        if element.slot[lane] == slot.number {
            element.slot[lane] = 0;
            self.pids
                .set(slot.tid / PIDS_PER_ELEMENT, PidElement(element), 0)
                .map_err(|source| ProbeError::Map {
                    operation: "releasing a thread from",
                    source,
                })?;
        }
        self.table.release(slot.number, Instant::now());
        Ok(())
    }

    /// Counters of a thread up to now, the open period included. Between two
    /// readings of one slot no counter ever falls.
    #[must_use]
    pub fn read(&self, slot: &Slot) -> Reading {
        let (mut stats, mut at_ns) = self.slots.snapshot(slot.number.into());
        let mut hint = ThreadState::Unknown;
        while stats.state == state::UNKNOWN {
            hint = slot
                .baseline
                .resolve(slot.tid, at_ns.saturating_sub(stats.since_ns));
            // Valid only if nothing happened while /proc was read.
            let (again, later) = self.slots.snapshot(slot.number.into());
            let quiet = again.seq == stats.seq;
            (stats, at_ns) = (again, later);
            if quiet {
                break;
            }
        }
        slot.floor
            .hold(Reading::of(&stats, at_ns, hint, self.numa_nodes > 1))
    }

    /// Totals of each possible CPU since the probes were attached, an idle
    /// period that is still open included up to now.
    #[must_use]
    pub fn cpus(&self) -> Vec<CpuStats> {
        (0..self.cpus.len())
            .map(|cpu| self.cpus.totals(cpu))
            .collect()
    }

    /// Registered threads.
    #[must_use]
    pub const fn slots_used(&self) -> usize {
        self.table.used()
    }

    /// Threads that can be registered.
    #[must_use]
    pub const fn slots_capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Memory of all maps, bytes.
    #[must_use]
    pub const fn map_bytes(&self) -> u64 {
        self.map_bytes
    }

    /// NUMA nodes with CPUs on this host.
    #[must_use]
    pub const fn numa_nodes(&self) -> usize {
        self.numa_nodes
    }

    fn pid_element(&self, tid: u32) -> Result<PidSlots, ProbeError> {
        let pids = self.pids.len().saturating_mul(PIDS_PER_ELEMENT);
        if tid == 0 || tid >= pids {
            return Err(ProbeError::PidOutOfRange { tid, pids });
        }
        self.pids
            .get(&(tid / PIDS_PER_ELEMENT), 0)
            .map(|element| element.0)
            .map_err(|source| ProbeError::Map {
                operation: "looking up a thread in",
                source,
            })
    }
}

/// Place of a pid within its element of the pid map.
const fn lane(tid: u32) -> usize {
    (tid % PIDS_PER_ELEMENT) as usize
}

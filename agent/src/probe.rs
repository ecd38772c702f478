//! The probes: BPF programs that count, for each registered thread, how long it
//! ran and how long it waited for a CPU.
//!
//! **Invariant:** nothing but this module talks to the kernel's BPF. Counters
//! are cumulative and never reset, so a reader that misses a tick loses
//! nothing. Reading is a memory read of a shared mapping, without a system
//! call a thread.

mod blame;
mod block;
mod btf;
mod caps;
mod cost;
#[cfg(feature = "bpf-log")]
mod diagnostics;
mod error;
mod family;
mod load;
mod map;
mod memory;
mod net;
mod node;
mod object;
mod queues;
mod reading;
mod slots;
mod snapshots;
mod unknown;

use std::time::Instant;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use headroom_abi::blame::CpuLog;
use headroom_abi::sched::{CpuStats, PIDS_PER_ELEMENT, PidSlots, SlotStats, state};
use headroom_abi::{snapshot, tag};

pub use block::{BlockProbes, BlockReading, BlockSource, MAX_OPEN, MAX_PAIRS};
pub use cost::{CostMeter, ProgramCost};
pub use error::{HeaderError, ProbeError};
pub use family::Attached;
pub use load::EmptyPrograms;
pub use memory::MemoryReader;
pub use net::NetDrops;
pub use object::{Header, check as check_object, embedded};
pub use queues::Queues;
pub use reading::{Reading, ThreadState};
pub use slots::Slot;
pub use snapshots::{Activity, Snapshot};

use crate::clock::monotonic_ns;
use crate::probe::map::{Mapped, PidElement, QueueRecord, Registration, SlotRecord};
use crate::probe::reading::Floor;
use crate::probe::slots::Table;
use crate::probe::snapshots::Snapshots;
use crate::probe::unknown::Baseline;

/// Threads that can be registered unless configured otherwise: 8 MB of map,
/// enough for the vCPUs of the largest hosts.
pub const DEFAULT_SLOTS: u16 = 4096;

/// VMs that can be told apart in who-waited-for-whom: 2 MB of map.
pub const DEFAULT_VMS: u16 = 511;

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
    /// VM numbers, 1 up to this.
    pub vms: u16,
    /// Which kind of program.
    pub attach: AttachPolicy,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            slots: DEFAULT_SLOTS,
            vms: DEFAULT_VMS,
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
    logs: Mapped<CpuLog>,
    blame: Mapped<u64>,
    queue_records: Array<MapData, QueueRecord>,
    queues: Option<Queues>,
    vms: u32,
    table: Table,
    numa_nodes: usize,
    throttling: bool,
    map_bytes: u64,
    families: Vec<Attached>,
    block: Option<BlockProbes>,
    net: Option<NetDrops>,
    memory: Option<MemoryReader>,
    snapshots: Option<Snapshots>,
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

    /// How far each family got.
    #[must_use]
    pub fn families(&self) -> &[Attached] {
        &self.families
    }

    /// What the family `virtio` counts, for its observer; once.
    pub const fn take_queues(&mut self) -> Option<Queues> {
        self.queues.take()
    }

    /// The block family, once; it works as long as these probes live.
    ///
    /// # Errors
    /// Why it is not attached, or that it was handed out before.
    pub fn take_block(&mut self) -> Result<BlockProbes, String> {
        let block = self.block.take();
        block.ok_or_else(|| self.why_not(family::BLOCK.name))
    }

    /// The counts of packets dropped by queue, once; they are kept as long as
    /// these probes live.
    ///
    /// # Errors
    /// Why their program is not attached, or that they were handed out before.
    pub fn take_net(&mut self) -> Result<NetDrops, String> {
        let net = self.net.take();
        net.ok_or_else(|| self.why_not(family::NET_QUEUES.name))
    }

    fn why_not(&self, family: &str) -> String {
        let family = self.families.iter().find(|f| f.family == family);
        let reason = family.and_then(|f| f.reason.clone());
        reason.unwrap_or_else(|| "handed out before".to_owned())
    }

    /// The reader of stalls for want of memory; once, and `None` where their
    /// programs are not attached.
    pub fn take_memory(&mut self) -> Option<MemoryReader> {
        self.memory.take()
    }

    /// Starts to count a thread: its id in the initial pid namespace, and whose
    /// it is ([`headroom_abi::tag`]; VM 0 for one without a number).
    ///
    /// # Errors
    /// No slot is free, the thread is registered already, its id is beyond the
    /// pid map, or the kernel refused the update.
    pub fn register(&mut self, tid: u32, tag: u32) -> Result<Slot, ProbeError> {
        let current = self.pid_element(tid)?;
        let lane = lane(tid);
        if current.slot[lane] != 0 {
            return Err(ProbeError::AlreadyRegistered { tid });
        }
        let number = self.table.take(Instant::now())?;
        let mut element = current;
        element.slot[lane] = number;
        let tag = if tag::vm(tag) < self.vms {
            tag
        } else {
            tag::role(tag)
        };
        let record = SlotRecord::registered(&Registration {
            now_ns: monotonic_ns(),
            cpu: unknown::cpu(tid),
            delay_ns: Baseline::of(tid).run_delay_ns(),
            tag,
        });
        // The record first: a program that sees the pid must find it ready.
        let written = self
            .records
            .set(u32::from(number), record, 0)
            .and_then(|()| self.queue_records.set(u32::from(number), queues::EMPTY, 0))
            .and_then(|()| {
                self.pids
                    .set(tid / PIDS_PER_ELEMENT, PidElement(element), 0)
            })
            .map_err(|source| ProbeError::Map {
                operation: "registering a thread in",
                source,
            });
        if let Err(error) = written.and_then(|()| self.cover()) {
            self.table.put_back(number);
            return Err(error);
        }
        Ok(Slot {
            number,
            tid,
            // Now that every event is seen: run time that grows from here on
            // without one means that the thread runs all the time. What it did
            // before the first is not ours.
            baseline: Baseline::of(tid),
            floor: Floor::default(),
            registered_ns: monotonic_ns(),
        })
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
        self.cover()
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
        let mut reading = Reading::of(&stats, at_ns, hint, self.numa_nodes > 1);
        if !self.throttling {
            reading.throttled_ns = None;
        }
        self.charge_open(&stats, &mut reading);
        slot.floor.hold(reading)
    }

    /// Time that VM number `victim` waited while another VM ran, by its
    /// number, since the probes were attached; waits that are open are in the
    /// readings of their threads. Numbers never seen together are left out.
    #[must_use]
    pub fn blamed(&self, victim: u16) -> Vec<(u16, u64)> {
        let victim = u32::from(victim);
        if victim >= self.vms {
            return Vec::new();
        }
        let cell = |culprit: u16| {
            let index = victim * self.vms + u32::from(culprit);
            let ns = self.blame.value(index as usize);
            (ns > 0).then_some((culprit, ns))
        };
        let culprits = u16::try_from(self.vms).unwrap_or(u16::MAX);
        (0..culprits).filter_map(cell).collect()
    }

    /// Charges an open wait to those who had the CPU so far, as the program
    /// will when it ends.
    fn charge_open(&self, stats: &SlotStats, reading: &mut Reading) {
        let open = reading.ready_open_ns.saturating_sub(stats.moved_wait_ns);
        let cpu = stats.wait_cpu as usize;
        if open == 0 || cpu >= self.cpus.len() {
            return;
        }
        let record = self.cpus.with_log(cpu, &self.logs);
        let wait = blame::Wait {
            vm: tag::vm(stats.tag),
            from_ns: reading.at_ns - open,
            to_ns: reading.at_ns,
        };
        blame::charge(&record, &wait, reading);
    }

    /// Whether a thread runs or is ready at this moment. Cheaper than [`Probes::read`]: three words.
    #[must_use]
    pub fn active(&self, slot: &Slot) -> Activity {
        let (state, since_ns, woken_ns) = self.slots.glance(slot.number.into());
        Activity::of(snapshot::of_thread(state, since_ns, woken_ns))
    }

    /// What a thread did at the moment of a snapshot.
    #[must_use]
    pub fn active_in(&self, slot: &Slot, snapshot: &Snapshot) -> Activity {
        snapshot.of(slot)
    }

    /// The snapshots since the last call, some 21 a second, oldest first; `None`
    /// while the kernel makes none. Those of more than 6 s ago are lost, which
    /// the row of the family says.
    pub fn take_snapshots(&mut self) -> Option<Vec<Snapshot>> {
        let snapshots = self.snapshots.as_mut()?;
        let taken = snapshots.take();
        let name = family::CONCURRENCY.name;
        if let Some(status) = self.families.iter_mut().find(|f| f.family == name) {
            status.reason = snapshots.problem();
        }
        (!snapshots.stalled()).then_some(taken)
    }

    /// Lets the snapshots hold all slots in use, and no more.
    fn cover(&mut self) -> Result<(), ProbeError> {
        match &mut self.snapshots {
            Some(snapshots) => snapshots.cover(self.table.highest()),
            None => Ok(()),
        }
    }

    /// Totals of each possible CPU since the probes were attached, its open
    /// segment included up to the reading: `since_ns`, which differs from CPU
    /// to CPU where the reader had to wait in between.
    #[must_use]
    pub fn cpus(&self) -> Vec<CpuStats> {
        (0..self.cpus.len())
            .map(|cpu| self.cpus.totals(cpu))
            .collect()
    }

    /// Registered threads.
    #[must_use]
    pub fn slots_used(&self) -> usize {
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

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    crate::sampler::chain(error)
}

/// Place of a pid within its element of the pid map.
const fn lane(tid: u32) -> usize {
    (tid % PIDS_PER_ELEMENT) as usize
}

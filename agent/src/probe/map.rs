//! The only unsafe part of the reader: read-only mappings of BPF arrays.
//!
//! Writing goes through system calls; the mapping can't be written, so that a
//! fault of the agent never changes what the kernel counts.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::Pod;
use headroom_abi::blame::{CpuLog, KINDS};
use headroom_abi::hist::BUCKETS;
use headroom_abi::memory::{MemoryStats, OomKill};
use headroom_abi::sched::{CpuStats, PidSlots, SlotStats, state};
use headroom_abi::tag;
use headroom_abi::virtio::{Doorbell, DoorbellKey, QueueStats};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::clock::monotonic_ns;

/// One element of the pid map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PidElement(pub PidSlots);

/// One element of the slot statistics.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SlotRecord(pub SlotStats);

/// One element of the queues' statistics.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct QueueRecord(pub QueueStats);

/// Key of a doorbell.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct WhichDoorbell(pub DoorbellKey);

/// A doorbell.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct DoorbellRecord(pub Doorbell);

// SAFETY: `repr(C)` integers without padding; any bytes are valid.
unsafe impl Pod for PidElement {}
// SAFETY: as above.
unsafe impl Pod for QueueRecord {}
// SAFETY: as above.
unsafe impl Pod for WhichDoorbell {}
// SAFETY: as above.
unsafe impl Pod for DoorbellRecord {}
// SAFETY: as above.
unsafe impl Pod for SlotRecord {}

/// What is known of a thread when it is registered.
pub struct Registration {
    /// The time, `CLOCK_MONOTONIC` ns.
    pub now_ns: u64,
    /// CPU it was on last, `u32::MAX` if that is not known.
    pub cpu: u32,
    /// Its waits so far by the kernel's count.
    pub delay_ns: u64,
    /// Whose it is.
    pub tag: u32,
}

impl SlotRecord {
    /// A thread of unknown state.
    pub const fn registered(thread: &Registration) -> Self {
        Self(SlotStats {
            seq: 0,
            state: state::UNKNOWN,
            cpu: thread.cpu,
            since_ns: thread.now_ns,
            woken_ns: 0,
            tag: thread.tag,
            wait_cpu: thread.cpu,
            run_ns: 0,
            delay_seen_ns: thread.delay_ns,
            ready_wake_ns: 0,
            ready_preempt_ns: 0,
            switches: 0,
            moved_wait_ns: 0,
            // More than any: only what begins after the registration counts.
            throttle_base_ns: u64::MAX,
            ready_max_ns: 0,
            throttled_ns: 0,
            throttles: 0,
            cpu_migrations: 0,
            node_migrations: 0,
            numa_moves: 0,
            numa_swaps: 0,
            clock_skews: 0,
            blame_ns: [0; KINDS],
            host_pid: 0,
            pad: 0,
            host_vote_ns: 0,
            hist_wake: [0; BUCKETS],
            hist_preempt: [0; BUCKETS],
            fill: [0; 6],
        })
    }
}

/// Records whose counters are read one by one: aligned integers only.
pub trait Tearable: Copy {}

impl Tearable for MemoryStats {}
impl Tearable for OomKill {}

/// A CPU's totals and log at one moment.
pub struct CpuRecord {
    /// Totals, the open segment not in them.
    pub stats: CpuStats,
    /// Finished segments.
    pub log: CpuLog,
}

/// A BPF array of `T` seen as memory.
pub struct Mapped<T> {
    start: NonNull<T>,
    len: usize,
    bytes: usize,
    of: PhantomData<T>,
}

// SAFETY: the mapping is read-only here and all reads are volatile or atomic.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the first `len` elements of an mmap-able array.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new(map: impl AsFd, len: u32) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        // The kernel's elements have a multiple of eight bytes: so do ours.
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            start,
            len,
            bytes,
            of: PhantomData,
        })
    }

    /// Elements in the array.
    pub const fn len(&self) -> usize {
        self.len
    }

    fn element(&self, index: usize) -> *mut T {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: within the mapping by the line above.
        unsafe { self.start.as_ptr().add(index) }
    }

    /// A consistent copy of an element and a time at which it still held.
    ///
    /// Waits while a program writes. That ends: programs run to their end with
    /// preemption off, and a write takes some 50 ns.
    fn consistent(&self, index: usize, seq: impl Fn(*mut T) -> *mut u64) -> (T, u64) {
        let element = self.element(index);
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        let seq = unsafe { AtomicU64::from_ptr(seq(element)) };
        let mut tries = 0u32;
        loop {
            let before = seq.load(Ordering::Acquire);
            // SAFETY: within the mapping; any bytes are a valid `T`.
            let copy = unsafe { element.read_volatile() };
            // The clock is read inside the lock: no event lies between the
            // copy and this time, so open periods may be counted up to it.
            let at_ns = monotonic_ns();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && seq.load(Ordering::Relaxed) == before {
                return (copy, at_ns);
            }
            tries += 1;
            if tries.is_multiple_of(64) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

impl Mapped<SlotStats> {
    /// A thread's statistics and the time (`CLOCK_MONOTONIC`, ns) up to which
    /// they hold.
    pub fn snapshot(&self, slot: usize) -> (SlotStats, u64) {
        // SAFETY: a field of an element within the mapping.
        self.consistent(slot, |stats| unsafe { &raw mut (*stats).seq })
    }
}

impl Mapped<SlotStats> {
    /// State, its beginning, and the last wake-up of a thread, each for itself:
    /// good enough for a sample.
    pub fn glance(&self, slot: usize) -> (u32, u64, u64) {
        let stats = self.element(slot);
        // SAFETY: aligned fields of an element within the mapping.
        unsafe {
            (
                (&raw const (*stats).state).read_volatile(),
                (&raw const (*stats).since_ns).read_volatile(),
                (&raw const (*stats).woken_ns).read_volatile(),
            )
        }
    }
}

impl Mapped<CpuStats> {
    /// A CPU's totals with the open segment ended at the reading, which is
    /// `since_ns`; 0 is kept for a CPU without an event so far.
    pub fn totals(&self, cpu: usize) -> CpuStats {
        // SAFETY: a field of an element within the mapping.
        let (mut stats, at_ns) = self.consistent(cpu, |stats| unsafe { &raw mut (*stats).seq });
        if stats.since_ns != 0 {
            let irq = stats.irq_ns - stats.irq_base_ns;
            let open = at_ns.saturating_sub(stats.since_ns).saturating_sub(irq);
            let role = tag::role(stats.tag) as usize;
            if let Some(time) = stats.role_ns.get_mut(role) {
                *time += open;
            }
            (stats.since_ns, stats.irq_base_ns) = (at_ns, stats.irq_ns);
        }
        stats
    }

    /// A CPU's totals and its log, which is written under the same lock.
    pub fn with_log(&self, cpu: usize, logs: &Mapped<CpuLog>) -> CpuRecord {
        loop {
            // SAFETY: a field of an element within the mapping.
            let (stats, _) = self.consistent(cpu, |stats| unsafe { &raw mut (*stats).seq });
            // SAFETY: within the mapping; any bytes are a valid log.
            let log = unsafe { logs.element(cpu).read_volatile() };
            fence(Ordering::Acquire);
            // SAFETY: an aligned word of the mapping.
            let seq = unsafe { AtomicU64::from_ptr(&raw mut (*self.element(cpu)).seq) };
            if seq.load(Ordering::Relaxed) == stats.seq {
                return CpuRecord { stats, log };
            }
        }
    }
}

impl Mapped<QueueStats> {
    /// A thread's queues and the time (`CLOCK_MONOTONIC`, ns) after the
    /// reading. There is no lock: an event may be half counted.
    pub fn words(&self, slot: usize) -> (QueueStats, u64) {
        // SAFETY: within the mapping; any bytes are valid statistics.
        let stats = unsafe { self.element(slot).read_volatile() };
        fence(Ordering::Acquire);
        (stats, monotonic_ns())
    }
}

impl Mapped<u64> {
    /// A counter that programs add to.
    pub fn value(&self, index: usize) -> u64 {
        // SAFETY: an aligned word of the mapping.
        unsafe { AtomicU64::from_ptr(self.element(index)) }.load(Ordering::Relaxed)
    }

    /// What `read` makes of some words, if the word at `seq` was `expected`
    /// before and after. A program that changes them makes it 0 first and
    /// another value than before at the end.
    pub fn under<R>(
        &self,
        seq: usize,
        expected: u64,
        read: impl FnOnce(&dyn Fn(usize) -> u64) -> R,
    ) -> Option<R> {
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        let seq = unsafe { AtomicU64::from_ptr(self.element(seq)) };
        if seq.load(Ordering::Acquire) != expected {
            return None;
        }
        let result = read(&|index| self.value(index));
        fence(Ordering::Acquire);
        (seq.load(Ordering::Relaxed) == expected).then_some(result)
    }
}

impl<T: Tearable> Mapped<T> {
    /// A copy of an element without a lock: each counter in it is right, two of
    /// them may be an event apart.
    pub fn copy(&self, index: usize) -> T {
        // SAFETY: within the mapping; any bytes are a valid `T`.
        unsafe { self.element(index).read_volatile() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; nothing borrows from it.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

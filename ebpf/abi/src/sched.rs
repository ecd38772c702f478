//! Scheduler statistics: one slot a registered thread, one record a CPU.

use crate::hist::BUCKETS;

/// Thread state in [`SlotStats::state`].
pub mod state {
    /// Registered, no event seen yet.
    pub const UNKNOWN: u32 = 0;
    /// Neither running nor runnable.
    pub const SLEEPING: u32 = 1;
    /// Runnable since a wake-up.
    pub const READY_WAKE: u32 = 2;
    /// Runnable since it was preempted.
    pub const READY_PREEMPT: u32 = 3;
    /// On a CPU.
    pub const RUNNING: u32 = 4;
    /// Gone for good; its pid may be another thread's by now and nothing is
    /// counted here any more.
    pub const EXITED: u32 = 5;
}

/// Slot numbers that fit into one element of the pid map: the kernel rounds
/// array elements up to eight bytes, so four `u16` share one.
pub const PIDS_PER_ELEMENT: u32 = 4;

/// One element of the pid map: slots of the pids `4·i .. 4·i + 4`; 0 means
/// that the pid is not registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct PidSlots {
    /// Slot number of each pid, 0 for none.
    pub slot: [u16; PIDS_PER_ELEMENT as usize],
}

/// Statistics of one registered thread. All counters are cumulative and never
/// reset while the slot belongs to the thread; times are ns of
/// `CLOCK_MONOTONIC`.
///
/// What every event touches comes first, in one cache line; the whole is 27
/// lines, so that no two threads share one. Wake-ups have no counter: each
/// ends in [`SlotStats::hist_wake`], or is still pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct SlotStats {
    /// Sequence lock: odd while a program writes. A reader that sees an odd
    /// or a changed value reads again.
    pub seq: u64,
    /// One of [`state`].
    pub state: u32,
    /// CPU of the last switch-in; before the first, the CPU that the thread
    /// was on when it was registered, `u32::MAX` if that is not known.
    pub cpu: u32,
    /// When `state` began; the time since is in no counter yet.
    pub since_ns: u64,
    /// Time on a CPU.
    pub run_ns: u64,
    /// Run-queue latency after wake-ups.
    pub ready_wake_ns: u64,
    /// Run-queue latency after preemptions.
    pub ready_preempt_ns: u64,
    /// Longest wait so far.
    pub ready_max_ns: u64,
    /// Times switched in.
    pub switches: u64,
    /// Switch-ins on another CPU than the last.
    pub cpu_migrations: u64,
    /// Switch-ins on another NUMA node than the last.
    pub node_migrations: u64,
    /// Events out of order, dropped (clock differences between CPUs).
    pub clock_skews: u64,
    /// Waits after a wake-up, by [`crate::hist`].
    pub hist_wake: [u64; BUCKETS],
    /// Waits after a preemption, by [`crate::hist`].
    pub hist_preempt: [u64; BUCKETS],
}

/// Totals of one CPU over all tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct CpuStats {
    /// Context switches.
    pub switches: u64,
    /// Wake-ups completed on this CPU: by the waker, or by the target's CPU
    /// where the kernel hands them over.
    pub wakeups: u64,
    /// Time in the idle task, ns; a period still open is not in it.
    pub idle_ns: u64,
    /// When the open idle period began, 0 when the CPU is busy.
    pub idle_since_ns: u64,
    /// Sequence lock of the two idle fields, as [`SlotStats::seq`].
    pub seq: u64,
    /// Keeps each CPU on a cache line of its own.
    pub pad: [u64; 3],
}

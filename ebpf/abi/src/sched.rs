//! Scheduler statistics: one slot a registered thread, one record a CPU.

use crate::blame::KINDS;
use crate::hist::BUCKETS;
use crate::tag::ROLES;

/// Thread state in [`SlotStats::state`].
pub mod state {
    /// Registered, no event seen yet.
    pub const UNKNOWN: u32 = 0;
    /// Neither running nor runnable; or woken, if [`super::SlotStats::woken_ns`]
    /// is later than the state.
    pub const SLEEPING: u32 = 1;
    /// Runnable since it was preempted.
    pub const READY: u32 = 2;
    /// Runnable, but its cgroup's quota was used up when it left the CPU.
    pub const THROTTLED: u32 = 3;
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
/// `CLOCK_MONOTONIC` unless the field says otherwise.
///
/// What every event touches comes first, in two cache lines; the whole is 30
/// lines, so that no two threads share one.
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
    /// When the thread was last woken out of a sleep. Written outside the
    /// sequence lock, under the thread's own lock.
    pub woken_ns: u64,
    /// Whose thread, see [`crate::tag`].
    pub tag: u32,
    /// CPU whose queue it was in last: where it waits, if it does.
    pub wait_cpu: u32,
    /// Time on a CPU.
    pub run_ns: u64,
    /// The kernel's own `sched_info.run_delay` up to which waits are in the
    /// counters, ns of the scheduler's clock.
    pub delay_seen_ns: u64,
    /// Run-queue latency after wake-ups.
    pub ready_wake_ns: u64,
    /// Run-queue latency after preemptions.
    pub ready_preempt_ns: u64,
    /// Times switched in.
    pub switches: u64,
    /// The part of the open wait that ended by a move to another CPU.
    pub moved_wait_ns: u64,
    /// Throttled time of the thread's cgroup on its CPU when the wait began,
    /// ns of the scheduler's clock.
    pub throttle_base_ns: u64,
    /// Longest wait so far.
    pub ready_max_ns: u64,
    /// Time stopped by a CPU quota.
    pub throttled_ns: u64,
    /// Waits that a quota took a part of.
    pub throttles: u64,
    /// Switch-ins on another CPU than the last.
    pub cpu_migrations: u64,
    /// Switch-ins on another NUMA node than the last.
    pub node_migrations: u64,
    /// Moves by the NUMA balancer (`sched_move_numa`), counted atomically.
    pub numa_moves: u64,
    /// Exchanges by the NUMA balancer (`sched_swap_numa`), counted atomically.
    pub numa_swaps: u64,
    /// Events out of order, dropped (clock differences between CPUs).
    pub clock_skews: u64,
    /// Run-queue latency by who had the CPU, indexed by [`crate::blame::kind`].
    pub blame_ns: [u64; KINDS],
    /// A task of the host that had the CPU in much of the waits: the majority's
    /// one if there is one (Boyer and Moore's vote, weighted by time).
    pub host_pid: u32,
    /// Keeps what follows aligned.
    pub pad: u32,
    /// Weight of that vote, ns.
    pub host_vote_ns: u64,
    /// Waits after a wake-up, by [`crate::hist`].
    pub hist_wake: [u64; BUCKETS],
    /// Waits after a preemption, by [`crate::hist`].
    pub hist_preempt: [u64; BUCKETS],
    /// Fills the last cache line.
    pub fill: [u64; 6],
}

/// Totals of one CPU over all tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct CpuStats {
    /// Sequence lock of what follows `wakeups`, as [`SlotStats::seq`].
    pub seq: u64,
    /// Context switches.
    pub switches: u64,
    /// Wake-ups done from this CPU.
    pub wakeups: u64,
    /// Whose segment is open, see [`crate::tag`].
    pub tag: u32,
    /// Thread that began it.
    pub pid: u32,
    /// When it began; 0 before the first event.
    pub since_ns: u64,
    /// `irq_ns` at that time.
    pub irq_base_ns: u64,
    /// Time in interrupts and soft interrupts; one still open is not in it.
    pub irq_ns: u64,
    /// Finished segments, the next place in [`crate::blame::CpuLog`].
    pub head: u64,
    /// Time by role, interrupts left out; the open segment is not in it.
    pub role_ns: [u64; ROLES],
    /// Σ (runnable − 1) · time, ns: waiting tasks, sampled at each tick.
    pub depth_ns: u64,
    /// When that was last added to.
    pub depth_at_ns: u64,
    /// When the open interrupt began.
    pub irq_since_ns: u64,
    /// Interrupts within one another.
    pub irq_nesting: u32,
    /// Longest run queue seen, tasks waiting.
    pub depth_max: u32,
    /// Interrupt handlers and soft interrupts run.
    pub irqs: u64,
    /// Threads with a slot that a tick found running although no switch to them
    /// had been seen.
    pub missed: u64,
    /// Keeps each CPU on cache lines of its own.
    pub fill: [u64; 2],
}

const _: () = assert!(size_of::<SlotStats>().is_multiple_of(64));
const _: () = assert!(size_of::<CpuStats>().is_multiple_of(64));

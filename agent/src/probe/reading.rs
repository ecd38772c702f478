//! What is known of a thread at one moment.

use std::sync::atomic::{AtomicU64, Ordering};

use headroom_abi::hist::BUCKETS;
use headroom_abi::sched::{SlotStats, state};
use rustix::time::{ClockId, clock_gettime};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// Registered a moment ago, no event yet.
    Unknown,
    /// Neither running nor runnable.
    Sleeping,
    /// Waits for a CPU since it was woken.
    ReadyWake,
    /// Waits for a CPU since it was preempted.
    ReadyPreempt,
    /// On a CPU.
    Running,
    /// Gone; its slot should be released.
    Exited,
}

/// Counters of a registered thread since its registration. Times are ns;
/// those of the open period are included up to `at_ns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Time of the reading, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// What the thread does.
    pub state: ThreadState,
    /// Time on a CPU.
    pub run_ns: u64,
    /// Run-queue latency after wake-ups.
    pub ready_wake_ns: u64,
    /// Run-queue latency after preemptions.
    pub ready_preempt_ns: u64,
    /// The open wait alone, 0 when it does not wait.
    pub ready_open_ns: u64,
    /// Longest wait, the open one included.
    pub ready_max_ns: u64,
    /// Times switched in.
    pub switches: u64,
    /// Times woken, a wake-up that still waits included.
    pub wakeups: u64,
    /// Switch-ins on another CPU than the last.
    pub cpu_migrations: u64,
    /// Switch-ins on another NUMA node than the last; `None` on a host with
    /// one node.
    pub node_migrations: Option<u64>,
    /// Events dropped because they were older than the last.
    pub clock_skews: u64,
    /// Finished waits after wake-ups, by [`headroom_abi::hist`].
    pub hist_wake: [u64; BUCKETS],
    /// Finished waits after preemptions, by [`headroom_abi::hist`].
    pub hist_preempt: [u64; BUCKETS],
}

impl Reading {
    /// `hint` stands for the state while no event was seen.
    pub(super) fn of(stats: &SlotStats, at_ns: u64, hint: ThreadState, numa: bool) -> Self {
        // The programs' clock is a lock-free twin of ours and may be some ns
        // ahead of it.
        let at_ns = at_ns.max(stats.since_ns);
        let open = at_ns - stats.since_ns;
        let mut reading = Self {
            at_ns,
            state: ThreadState::of(stats.state, hint),
            run_ns: stats.run_ns,
            ready_wake_ns: stats.ready_wake_ns,
            ready_preempt_ns: stats.ready_preempt_ns,
            ready_open_ns: 0,
            ready_max_ns: stats.ready_max_ns,
            switches: stats.switches,
            wakeups: stats.hist_wake.iter().sum::<u64>()
                + u64::from(stats.state == state::READY_WAKE),
            cpu_migrations: stats.cpu_migrations,
            node_migrations: numa.then_some(stats.node_migrations),
            clock_skews: stats.clock_skews,
            hist_wake: stats.hist_wake,
            hist_preempt: stats.hist_preempt,
        };
        match reading.state {
            ThreadState::Running => reading.run_ns += open,
            ThreadState::ReadyWake => reading.ready_wake_ns += open,
            ThreadState::ReadyPreempt => reading.ready_preempt_ns += open,
            ThreadState::Unknown | ThreadState::Sleeping | ThreadState::Exited => return reading,
        }
        if reading.state != ThreadState::Running {
            reading.ready_open_ns = open;
            // A wait since before the registration is no whole wait: it is not
            // in the kernel's maximum either, and the figure must not fall.
            if stats.state != state::UNKNOWN {
                reading.ready_max_ns = reading.ready_max_ns.max(open);
            }
        }
        reading
    }
}

/// The largest times handed out so far.
///
/// A program reads the clock some 50 ns before its change can be seen: a reader
/// in between counts the open period a little too far. The next reading is held
/// at that figure rather than fall.
#[derive(Debug, Default)]
pub(super) struct Floor([AtomicU64; 4]);

impl Floor {
    pub(super) fn hold(&self, mut reading: Reading) -> Reading {
        let times = [
            &mut reading.run_ns,
            &mut reading.ready_wake_ns,
            &mut reading.ready_preempt_ns,
            &mut reading.ready_max_ns,
        ];
        for (floor, time) in self.0.iter().zip(times) {
            *time = floor.fetch_max(*time, Ordering::Relaxed).max(*time);
        }
        reading
    }
}

impl ThreadState {
    const fn of(value: u32, hint: Self) -> Self {
        match value {
            state::SLEEPING => Self::Sleeping,
            state::READY_WAKE => Self::ReadyWake,
            state::READY_PREEMPT => Self::ReadyPreempt,
            state::RUNNING => Self::Running,
            state::EXITED => Self::Exited,
            _ => hint,
        }
    }
}

/// `CLOCK_MONOTONIC`, ns: the clock of the programs.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::map::SlotRecord;

    fn stats(state: u32) -> SlotStats {
        let mut stats = SlotRecord::registered(1_000, 0).0;
        stats.state = state;
        stats
    }

    #[test]
    fn the_open_period_goes_to_its_state() {
        let of = |s| Reading::of(&stats(s), 1_500, ThreadState::Unknown, false);
        assert_eq!(of(state::RUNNING).run_ns, 500);
        assert_eq!(of(state::READY_WAKE).ready_wake_ns, 500);
        let preempted = of(state::READY_PREEMPT);
        assert_eq!(
            (preempted.ready_preempt_ns, preempted.ready_open_ns),
            (500, 500)
        );
        assert_eq!(preempted.ready_max_ns, 500);
        for quiet in [state::SLEEPING, state::EXITED, state::UNKNOWN] {
            let r = of(quiet);
            assert_eq!(
                r.run_ns + r.ready_wake_ns + r.ready_preempt_ns + r.ready_open_ns,
                0
            );
        }
    }

    #[test]
    fn the_hint_stands_for_an_unknown_state_only() {
        let spin = Reading::of(&stats(state::UNKNOWN), 1_500, ThreadState::Running, false);
        assert_eq!((spin.run_ns, spin.state), (500, ThreadState::Running));
        let sleep = Reading::of(&stats(state::SLEEPING), 1_500, ThreadState::Running, false);
        assert_eq!((sleep.run_ns, sleep.state), (0, ThreadState::Sleeping));
    }

    #[test]
    fn a_clock_behind_the_programs_gives_no_time() {
        let r = Reading::of(&stats(state::RUNNING), 900, ThreadState::Unknown, false);
        assert_eq!((r.at_ns, r.run_ns), (1_000, 0));
    }

    #[test]
    fn times_handed_out_never_fall() {
        let floor = Floor::default();
        let of = |at| Reading::of(&stats(state::RUNNING), at, ThreadState::Unknown, false);
        assert_eq!(floor.hold(of(1_500)).run_ns, 500);
        assert_eq!(floor.hold(of(1_450)).run_ns, 500);
        assert_eq!(floor.hold(of(1_600)).run_ns, 600);
    }

    #[test]
    fn one_node_has_no_node_migrations() {
        let of = |numa| Reading::of(&stats(state::RUNNING), 1_000, ThreadState::Unknown, numa);
        assert_eq!(of(false).node_migrations, None);
        assert_eq!(of(true).node_migrations, Some(0));
    }
}

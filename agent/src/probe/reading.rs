//! What is known of a thread at one moment.

use std::sync::atomic::{AtomicU64, Ordering};

use headroom_abi::blame::KINDS;
use headroom_abi::hist::BUCKETS;
use headroom_abi::sched::{SlotStats, state};

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
    /// Could run, but its cgroup's quota is used up.
    Throttled,
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
    /// Time stopped by a CPU quota; `None` on a kernel without quotas.
    pub throttled_ns: Option<u64>,
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
    /// Moves and exchanges by the NUMA balancer; `None` on a host with one
    /// node.
    pub numa_moves: Option<u64>,
    /// Run-queue latency by who had the CPU, by [`headroom_abi::blame::kind`].
    pub blame_ns: [u64; KINDS],
    /// The part of the open wait that other VMs ran, by their number.
    pub open_vms: Vec<(u16, u64)>,
    /// A task of the host behind much of the waits, 0 for none.
    pub host_pid: u32,
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
        let state = ThreadState::of(stats, hint);
        let mut reading = Self {
            at_ns,
            state,
            run_ns: stats.run_ns,
            ready_wake_ns: stats.ready_wake_ns,
            ready_preempt_ns: stats.ready_preempt_ns,
            throttled_ns: Some(stats.throttled_ns),
            ready_open_ns: 0,
            ready_max_ns: stats.ready_max_ns,
            switches: stats.switches,
            wakeups: stats.hist_wake.iter().sum::<u64>()
                + u64::from(state == ThreadState::ReadyWake),
            cpu_migrations: stats.cpu_migrations,
            node_migrations: numa.then_some(stats.node_migrations),
            numa_moves: numa.then_some(stats.numa_moves + stats.numa_swaps),
            blame_ns: stats.blame_ns,
            open_vms: Vec::new(),
            host_pid: stats.host_pid,
            clock_skews: stats.clock_skews,
            hist_wake: stats.hist_wake,
            hist_preempt: stats.hist_preempt,
        };
        reading.add_open(stats);
        reading
    }

    /// Adds the period that is still open to the time it belongs to.
    fn add_open(&mut self, stats: &SlotStats) {
        let open = self.at_ns - stats.since_ns;
        let woken = self.at_ns.saturating_sub(stats.woken_ns);
        let wait = match self.state {
            ThreadState::Running => {
                self.run_ns += open;
                return;
            }
            ThreadState::Throttled => {
                self.throttled_ns = self.throttled_ns.map(|t| t + open);
                return;
            }
            ThreadState::Unknown | ThreadState::Sleeping | ThreadState::Exited => return,
            ThreadState::ReadyWake => {
                // Woken since the last event, or waiting since before the
                // registration.
                let wait = if stats.woken_ns > stats.since_ns {
                    woken
                } else {
                    open
                };
                self.ready_wake_ns += wait;
                wait
            }
            ThreadState::ReadyPreempt => {
                self.ready_preempt_ns += open;
                open
            }
        };
        self.ready_open_ns = wait;
        // A wait since before the registration is no whole wait: it is not in
        // the kernel's maximum either, and the figure must not fall.
        if stats.state != state::UNKNOWN {
            self.ready_max_ns = self.ready_max_ns.max(wait);
        }
    }
}

/// The largest times handed out so far.
///
/// A program reads the clock some 50 ns before its change can be seen: a reader
/// in between counts the open period a little too far. The next reading is held
/// at that figure rather than fall.
#[derive(Debug, Default)]
pub(super) struct Floor([AtomicU64; 5 + KINDS]);

impl Floor {
    pub(super) fn hold(&self, mut reading: Reading) -> Reading {
        let mut throttled = reading.throttled_ns.unwrap_or(0);
        let times = [
            &mut reading.run_ns,
            &mut reading.ready_wake_ns,
            &mut reading.ready_preempt_ns,
            &mut reading.ready_max_ns,
            &mut throttled,
        ];
        for (floor, time) in self
            .0
            .iter()
            .zip(times.into_iter().chain(&mut reading.blame_ns))
        {
            *time = floor.fetch_max(*time, Ordering::Relaxed).max(*time);
        }
        reading.throttled_ns = reading.throttled_ns.map(|_| throttled);
        reading
    }
}

impl ThreadState {
    fn of(stats: &SlotStats, hint: Self) -> Self {
        let woken = stats.woken_ns > stats.since_ns;
        match stats.state {
            state::SLEEPING | state::UNKNOWN if woken => Self::ReadyWake,
            state::SLEEPING => Self::Sleeping,
            state::READY => Self::ReadyPreempt,
            state::THROTTLED => Self::Throttled,
            state::RUNNING => Self::Running,
            state::EXITED => Self::Exited,
            _ => hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::map::{Registration, SlotRecord};

    fn stats(state: u32) -> SlotStats {
        let mut stats = SlotRecord::registered(&Registration {
            now_ns: 1_000,
            cpu: 0,
            delay_ns: 0,
            tag: 0,
        })
        .0;
        stats.state = state;
        stats
    }

    #[test]
    fn the_open_period_goes_to_its_state() {
        let of = |s| Reading::of(&stats(s), 1_500, ThreadState::Unknown, false);
        assert_eq!(of(state::RUNNING).run_ns, 500);
        let mut woken = stats(state::SLEEPING);
        woken.woken_ns = 1_200;
        let woken = Reading::of(&woken, 1_500, ThreadState::Unknown, false);
        assert_eq!((woken.ready_wake_ns, woken.ready_open_ns), (300, 300));
        assert_eq!(of(state::THROTTLED).throttled_ns, Some(500));
        let preempted = of(state::READY);
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

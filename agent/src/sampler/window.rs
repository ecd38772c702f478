//! Subtraction of cumulative readings. Pure.

use headroom_abi::blame::KINDS;
use headroom_core::hist::{BUCKETS, Hist, midpoint};

use crate::source::{Detail, Reading};

/// What one thread did between two readings; run + ready + throttled + wait =
/// window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Length, ns.
    pub window_ns: u64,
    /// On a CPU, ns.
    pub run_ns: u64,
    /// Run-queue latency, ns.
    pub ready_ns: u64,
    /// Stopped by a CPU quota, ns; `None` where the source does not tell.
    pub throttled_ns: Option<u64>,
    /// Neither running nor ready nor throttled, ns.
    pub wait_ns: u64,
    /// Events out of order; `None` where the source has no events.
    pub clock_skews: Option<u64>,
    /// What only the probes tell.
    pub detail: Option<DeltaDetail>,
}

/// The part of a [`Delta`] that only the probes tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeltaDetail {
    /// Part of `ready_ns` after wake-ups.
    pub ready_wake_ns: u64,
    /// Part of `ready_ns` after preemptions.
    pub ready_preempt_ns: u64,
    /// Longest wait open at the end or ended in the window, ns.
    pub ready_max_ns: u64,
    /// Times switched in.
    pub switches: u64,
    /// CPU migrations.
    pub cpu_migrations: u64,
    /// Node migrations; `None` on a host with one node.
    pub node_migrations: Option<u64>,
    /// Run-queue latency by who had the CPU, ns, by
    /// [`headroom_abi::blame::kind`].
    pub blame_ns: [u64; KINDS],
    /// Moves by the NUMA balancer; `None` on a host with one node.
    pub numa_moves: Option<u64>,
    /// A task of the host behind much of the waits so far, 0 for none.
    pub host_pid: u32,
    /// Waits that ended.
    pub hist: Hist,
}

impl Delta {
    /// Adds what the same thread did right after.
    pub fn append(&mut self, later: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b);
        self.window_ns += later.window_ns;
        self.run_ns += later.run_ns;
        self.ready_ns += later.ready_ns;
        self.throttled_ns = sum(self.throttled_ns, later.throttled_ns);
        self.wait_ns += later.wait_ns;
        self.clock_skews = sum(self.clock_skews, later.clock_skews);
        self.detail = match (self.detail.take(), &later.detail) {
            (Some(a), Some(b)) => Some(a.append(b)),
            _ => None,
        };
    }
}

impl DeltaDetail {
    fn append(mut self, later: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b);
        self.hist.merge(&later.hist);
        Self {
            ready_wake_ns: self.ready_wake_ns + later.ready_wake_ns,
            ready_preempt_ns: self.ready_preempt_ns + later.ready_preempt_ns,
            ready_max_ns: self.ready_max_ns.max(later.ready_max_ns),
            switches: self.switches + later.switches,
            cpu_migrations: self.cpu_migrations + later.cpu_migrations,
            node_migrations: sum(self.node_migrations, later.node_migrations),
            blame_ns: std::array::from_fn(|k| self.blame_ns[k] + later.blame_ns[k]),
            numa_moves: sum(self.numa_moves, later.numa_moves),
            host_pid: later.host_pid,
            hist: self.hist,
        }
    }
}

/// What happened since `base`, which moves on to `end`.
///
/// A source may credit time late: `schedstat` adds a wait when it has ended
/// and running time at the clock tick, so a short window could get more than
/// it is long. The excess stays in `base` for the next window: no window
/// claims more than its length and the sum over windows loses nothing.
pub fn advance(base: &mut Reading, end: &Reading) -> Delta {
    let window_ns = end.at_ns.saturating_sub(base.at_ns);
    let run_ns = end.run_ns.saturating_sub(base.run_ns).min(window_ns);
    let throttled = |r: &Reading| r.detail.as_ref().and_then(|d| d.throttled_ns);
    let throttled_ns = throttled(end)
        .zip(throttled(base))
        .map(|(e, b)| e.saturating_sub(b).min(window_ns - run_ns));
    let ready_room = window_ns - run_ns - throttled_ns.unwrap_or(0);
    let (detail, ready_ns) = match (base.detail.as_deref(), end.detail.as_deref()) {
        (Some(b), Some(e)) => {
            let d = detail(b, e, ready_room);
            let ready_ns = d.ready_wake_ns + d.ready_preempt_ns;
            (Some(d), ready_ns)
        }
        _ => (
            None,
            end.ready_ns.saturating_sub(base.ready_ns).min(ready_room),
        ),
    };
    let clock_skews = end
        .clock_skews
        .zip(base.clock_skews)
        .map(|(e, b)| e.saturating_sub(b));
    let delta = Delta {
        window_ns,
        run_ns,
        ready_ns,
        throttled_ns,
        wait_ns: ready_room - ready_ns,
        clock_skews,
        detail,
    };
    *base = next_base(base, end, &delta);
    delta
}

fn next_base(base: &Reading, end: &Reading, delta: &Delta) -> Reading {
    let mut next = Reading {
        at_ns: end.at_ns.max(base.at_ns),
        run_ns: base.run_ns + delta.run_ns,
        ready_ns: base.ready_ns + delta.ready_ns,
        ..end.clone()
    };
    if let (Some(n), Some(b), Some(d)) = (
        next.detail.as_mut(),
        base.detail.as_ref(),
        delta.detail.as_ref(),
    ) {
        n.ready_wake_ns = b.ready_wake_ns + d.ready_wake_ns;
        n.ready_preempt_ns = b.ready_preempt_ns + d.ready_preempt_ns;
        n.throttled_ns = b.throttled_ns.zip(delta.throttled_ns).map(|(b, d)| b + d);
    }
    next
}

fn detail(base: &Detail, end: &Detail, ready_room: u64) -> DeltaDetail {
    let ready_wake_ns = end
        .ready_wake_ns
        .saturating_sub(base.ready_wake_ns)
        .min(ready_room);
    let preempt = end.ready_preempt_ns.saturating_sub(base.ready_preempt_ns);
    let hist = end.hist.since(&base.hist);
    DeltaDetail {
        ready_wake_ns,
        ready_preempt_ns: preempt.min(ready_room - ready_wake_ns),
        ready_max_ns: longest(base, end, &hist),
        switches: end.switches.saturating_sub(base.switches),
        cpu_migrations: end.cpu_migrations.saturating_sub(base.cpu_migrations),
        node_migrations: end
            .node_migrations
            .zip(base.node_migrations)
            .map(|(e, b)| e.saturating_sub(b)),
        blame_ns: std::array::from_fn(|k| end.blame_ns[k].saturating_sub(base.blame_ns[k])),
        numa_moves: end
            .numa_moves
            .zip(base.numa_moves)
            .map(|(e, b)| e.saturating_sub(b)),
        host_pid: end.host_pid,
        hist,
    }
}

/// The probes keep one maximum since registration. Where it grew, the new one
/// is the window's, exactly; else the highest bucket tells, within 12.5 %.
fn longest(base: &Detail, end: &Detail, hist: &Hist) -> u64 {
    let ended = if end.ready_max_ns > base.ready_max_ns {
        end.ready_max_ns
    } else {
        let highest = (0..BUCKETS).rev().find(|b| hist.counts()[*b] > 0);
        highest.map_or(0, |b| midpoint(b).min(end.ready_max_ns))
    };
    ended.max(end.ready_open_ns)
}

#[cfg(test)]
mod tests;

//! Subtraction of a backend's counters. Pure.

use headroom_abi::virtio::{QueueStats, wake};
use headroom_core::hist::{BUCKETS, Hist, midpoint};

/// What a backend did between two readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Length, ns.
    pub window_ns: u64,
    /// Wake-ups by kicks.
    pub wakes: u64,
    /// Pickups.
    pub pickup: Hist,
    /// Their sum, ns.
    pub pickup_ns: u64,
    /// The longest, ns, an open one included.
    pub pickup_max_ns: u64,
    /// The open one, ns.
    pub pending_ns: u64,
    /// Switch-ins after other wake-ups.
    pub completion: Hist,
    /// Their sum, ns.
    pub completion_ns: u64,
    /// Interrupts injected.
    pub injects: u64,
    /// Injections that woke a vCPU.
    pub inject: Hist,
    /// Their sum, ns.
    pub inject_ns: u64,
}

impl Delta {
    /// From one reading to a later one; each with its time, ns.
    pub fn between(base: &(QueueStats, u64), last: &(QueueStats, u64)) -> Self {
        let ((from, start), (to, end)) = (base, last);
        let pickup = hist(&from.pickup, &to.pickup);
        let pending_ns = open(to).map_or(0, |since| end.saturating_sub(since));
        let since = |f: fn(&QueueStats) -> u64| f(to).saturating_sub(f(from));
        let wakes = pickup.total() + since(|s| s.kicks_running) + u64::from(open(to).is_some());
        Self {
            window_ns: end.saturating_sub(*start),
            wakes: wakes.saturating_sub(u64::from(open(from).is_some())),
            pickup_max_ns: longest(from, to, &pickup).max(pending_ns),
            pickup_ns: since(|s| s.pickup_ns),
            pickup,
            pending_ns,
            completion: hist(&from.completion, &to.completion),
            completion_ns: since(|s| s.completion_ns),
            injects: since(|s| s.injected),
            inject: hist(&from.inject, &to.inject),
            inject_ns: since(|s| s.inject_sum_ns),
        }
    }
}

/// Whether a thread has ever served a queue.
pub fn serves(stats: &QueueStats) -> bool {
    stats.injected > 0
        || stats.kicks_running > 0
        || stats.pickup_max_ns > 0
        || open(stats).is_some()
}

/// Since when a kick waits for its pickup, ns. One that found the backend on
/// a CPU may have been seen there: it does not count as open.
fn open(stats: &QueueStats) -> Option<u64> {
    let kind = stats.woken & wake::MASK;
    (kind == wake::KICK).then_some(stats.woken & !wake::MASK)
}

/// Counts wrap at 2^32.
fn hist(from: &[u32; BUCKETS], to: &[u32; BUCKETS]) -> Hist {
    let mut counts = [0; BUCKETS];
    for (count, (to, from)) in counts.iter_mut().zip(to.iter().zip(from)) {
        *count = u64::from(to.wrapping_sub(*from));
    }
    Hist::from_counts(counts)
}

/// Exact where it is the longest so far, else of the last bucket in use.
fn longest(from: &QueueStats, to: &QueueStats, pickup: &Hist) -> u64 {
    if to.pickup_max_ns > from.pickup_max_ns {
        return to.pickup_max_ns;
    }
    let last = pickup.counts().iter().rposition(|n| *n > 0);
    last.map_or(0, |bucket| midpoint(bucket).min(to.pickup_max_ns))
}

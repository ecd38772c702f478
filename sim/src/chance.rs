//! The seed's randomness while it runs, and how long work takes.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt as _;

/// Longest half of a piece of the collector's work, ms.
static PACE: AtomicU32 = AtomicU32::new(2);

/// A number of that range.
pub fn within(range: RangeInclusive<u32>) -> u32 {
    mad_turmoil::rand::get_rng().random_range(range)
}

/// True once in `n` times; never for 0.
pub fn one_in(n: u32) -> bool {
    n > 0 && within(1..=n) == 1
}

/// Sets how slow the collector's disk is.
pub fn set_pace(longest_ms: u32) {
    PACE.store(longest_ms, Ordering::Relaxed);
}

/// How long half of a piece of the collector's work takes now.
pub fn pace() -> Duration {
    millis(0..=PACE.load(Ordering::Relaxed))
}

/// How long an agent's disk takes for one operation.
pub fn keeper_pace() -> Duration {
    millis(1..=20)
}

fn millis(range: RangeInclusive<u32>) -> Duration {
    Duration::from_millis(within(range).into())
}

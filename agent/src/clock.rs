//! The two clocks: wall time for what is stored, monotonic time for lengths.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Wall time now, since 1970-01-01 UTC (zero for a clock set before that).
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A point in wall time as stored: µs since 1970-01-01 UTC.
#[must_use]
pub fn micros(since_1970: Duration) -> i64 {
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
}

/// `CLOCK_MONOTONIC` now, ns: the clock of the probes too
/// (`bpf_ktime_get_ns`).
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // It starts at boot: never negative, and 584 years until it leaves 64 bits.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

/// Start of the step of wall time that `now` lies in.
#[must_use]
pub fn floor(now: Duration, step: Duration) -> Duration {
    let rest = now.as_nanos() % step.as_nanos().max(1);
    now.saturating_sub(Duration::from_nanos(u64::try_from(rest).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_to_multiples_of_wall_time() {
        let step = Duration::from_secs(10);
        assert_eq!(
            floor(Duration::from_millis(1_763_692_919_999), step),
            Duration::from_secs(1_763_692_910)
        );
        assert_eq!(
            floor(Duration::from_secs(1_763_692_920), step),
            Duration::from_secs(1_763_692_920)
        );
    }
}

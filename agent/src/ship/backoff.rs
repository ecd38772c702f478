//! Pauses between attempts.

use std::time::Duration;

use rand::Rng as _;

/// First pause.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles from 0.1 s to 5 s; the upper half is random, so that the agents of
/// a collector that comes back do not all call at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let limit = self.next;
        self.next = (limit * 2).min(LONGEST);
        limit
            .mul_f64(rand::rng().random_range(0.5..=1.0))
            .max(FIRST)
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_bounds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.pause()).collect();
        assert!(
            pauses.iter().all(|p| (FIRST..=LONGEST).contains(p)),
            "{pauses:?}"
        );
        assert!(pauses[19] >= LONGEST / 2);
        backoff.reset();
        assert_eq!(backoff.pause(), FIRST);
    }
}

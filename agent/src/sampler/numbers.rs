//! Small numbers for VMs, by which the probes' maps are indexed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a number rests after its VM's last window: programs that started
/// before the release end within µs.
const REST: Duration = Duration::from_secs(1);

/// Free, used and resting numbers; 0 is never given out.
#[derive(Debug)]
pub struct Numbers {
    next: u16,
    last: u16,
    free: VecDeque<(Instant, u16)>,
}

impl Numbers {
    /// Numbers `1..=last`.
    pub const fn new(last: u16) -> Self {
        Self {
            next: 1,
            last,
            free: VecDeque::new(),
        }
    }

    /// A number that no VM has; `None` when all are used or rest.
    pub fn take(&mut self, now: Instant) -> Option<u16> {
        if let Some((since, number)) = self.free.front().copied()
            && now.duration_since(since) >= REST
        {
            self.free.pop_front();
            return Some(number);
        }
        (self.next <= self.last).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Gives a number back.
    pub fn release(&mut self, number: u16, now: Instant) {
        self.free.push_back((now, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_rests_before_another_vm_gets_it() {
        let (mut numbers, start) = (Numbers::new(2), Instant::now());
        assert_eq!(numbers.take(start), Some(1));
        numbers.release(1, start);
        assert_eq!(numbers.take(start), Some(2));
        assert_eq!(numbers.take(start), None);
        assert_eq!(numbers.take(start + REST), Some(1));
        assert_eq!(numbers.take(start + REST), None);
    }
}

//! Which slots are free.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::probe::error::ProbeError;
use crate::probe::reading::Floor;
use crate::probe::unknown::Baseline;

/// How long a released slot rests: a program that read the pid map before the
/// release may still write to it, for the µs that it runs; a second is far
/// beyond any grace period and one read tick.
pub const QUARANTINE: Duration = Duration::from_secs(1);

/// A registered thread. Give it back with
/// [`Probes::release`](super::Probes::release); dropped, it stays taken.
#[derive(Debug)]
#[must_use = "a dropped slot stays taken"]
pub struct Slot {
    pub(super) number: u16,
    pub(super) tid: u32,
    pub(super) baseline: Baseline,
    pub(super) floor: Floor,
    /// When the registration was complete, `CLOCK_MONOTONIC` ns.
    pub(super) registered_ns: u64,
}

impl Slot {
    /// The thread.
    #[must_use]
    pub const fn tid(&self) -> u32 {
        self.tid
    }
}

/// Free, used and resting slots; number 0 means "not registered".
#[derive(Debug)]
pub struct Table {
    capacity: u16,
    free: Vec<u16>,
    resting: VecDeque<(Instant, u16)>,
    used: BTreeSet<u16>,
}

impl Table {
    /// Slots `1..=capacity`, all free.
    pub fn new(capacity: u16) -> Self {
        // The lowest first: the kernel touches as few pages as possible.
        let free = (1..=capacity).rev().collect();
        Self {
            capacity,
            free,
            resting: VecDeque::new(),
            used: BTreeSet::new(),
        }
    }

    /// A free slot.
    ///
    /// # Errors
    /// All are used or resting.
    pub fn take(&mut self, now: Instant) -> Result<u16, ProbeError> {
        while let Some((since, number)) = self.resting.front().copied() {
            if now.duration_since(since) < QUARANTINE {
                break;
            }
            self.resting.pop_front();
            self.free.push(number);
        }
        let number = self.free.pop().ok_or(ProbeError::SlotsFull {
            capacity: self.capacity(),
        })?;
        self.used.insert(number);
        Ok(number)
    }

    /// Undoes [`Table::take`] of a slot that no program ever saw.
    pub fn put_back(&mut self, number: u16) {
        self.free.push(number);
        self.used.remove(&number);
    }

    /// Lets a slot rest, then be free.
    pub fn release(&mut self, number: u16, now: Instant) {
        self.resting.push_back((now, number));
        self.used.remove(&number);
    }

    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// The highest slot in use, 0 for none.
    pub fn highest(&self) -> u16 {
        self.used.last().copied().unwrap_or(0)
    }

    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_slot_rests_before_it_is_given_out() {
        let (mut table, start) = (Table::new(2), Instant::now());
        assert_eq!(table.take(start).unwrap(), 1);
        assert_eq!(table.take(start).unwrap(), 2);
        assert!(matches!(
            table.take(start),
            Err(ProbeError::SlotsFull { capacity: 2 })
        ));
        table.release(1, start);
        assert_eq!((table.used(), table.highest()), (1, 2));
        assert!(table.take(start + QUARANTINE / 2).is_err());
        assert_eq!(table.take(start + QUARANTINE).unwrap(), 1);
    }

    #[test]
    fn a_slot_put_back_is_free_at_once() {
        let (mut table, now) = (Table::new(1), Instant::now());
        let number = table.take(now).unwrap();
        table.put_back(number);
        assert_eq!(table.used(), 0);
        assert_eq!(table.take(now).unwrap(), number);
    }
}

//! What every vCPU did at one moment: a ring of snapshots in one array of
//! words.
//!
//! Word [`HEAD`] counts the snapshots made; word [`COVERED`] is written by user
//! space alone. From [`FIRST`] on stand [`RING`] snapshots of
//! [`stride`] words each, the one of number `n` at place `n % RING`: its
//! sequence word, its time, its number of slots, then two bits a slot.

use crate::sched::state;

/// Snapshots that are kept, 6 s of them.
pub const RING: u32 = 128;

/// Between two snapshots, ns: 21 a second, and out of step with timers of 1, 4
/// and 10 ms. Its fractional parts of them are 0.62, 0.90 and 0.76, so that
/// successive snapshots fall evenly on all phases of such a timer.
pub const PERIOD_NS: u64 = 47_618_034;

/// Word that counts the finished snapshots.
pub const HEAD: u32 = 0;
/// Word that says how many slots to look at, from slot 0 on.
pub const COVERED: u32 = 1;
/// Word at which the ring begins.
pub const FIRST: u32 = 2;

/// Of a snapshot: its number plus one; 0 while a program writes it.
pub const SEQ: u32 = 0;
/// Of a snapshot: when it was begun, ns of `CLOCK_MONOTONIC`.
pub const AT_NS: u32 = 1;
/// Of a snapshot: slots in it, from slot 0 on.
pub const SLOTS: u32 = 2;
/// Of a snapshot: words before the slots.
pub const HEADER: u32 = 3;

/// Slots in a word, the lowest bits first.
pub const SLOTS_PER_WORD: u32 = 32;

/// What a slot's thread does.
pub mod activity {
    /// No thread of a vCPU.
    pub const NONE: u64 = 0;
    /// Neither runs nor is ready.
    pub const INACTIVE: u64 = 1;
    /// Runs or is ready.
    pub const ACTIVE: u64 = 2;
    /// No event was seen yet.
    pub const UNKNOWN: u64 = 3;
}

/// What a thread does by its slot's state, the state's beginning and the last
/// wake-up; one of [`activity`].
#[inline(always)]
#[must_use]
pub const fn of_thread(state: u32, since_ns: u64, woken_ns: u64) -> u64 {
    if state == state::RUNNING || state == state::READY {
        return activity::ACTIVE;
    }
    if state == state::SLEEPING && woken_ns > since_ns {
        return activity::ACTIVE;
    }
    if state == state::UNKNOWN {
        return activity::UNKNOWN;
    }
    activity::INACTIVE
}

/// Words of one snapshot of that many slots.
#[must_use]
pub const fn stride(slots: u32) -> u32 {
    HEADER + slots.div_ceil(SLOTS_PER_WORD)
}

/// Words of the whole array for that many slots.
#[must_use]
pub const fn words(slots: u32) -> u32 {
    FIRST + RING * stride(slots)
}

/// Word at which the snapshot of that number begins.
#[inline(always)]
#[must_use]
pub const fn start(number: u64, stride: u32) -> u32 {
    FIRST + (number % RING as u64) as u32 * stride
}

const _: () = assert!(RING.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_woken_sleeper_is_active_and_a_throttled_one_is_not() {
        assert_eq!(of_thread(state::SLEEPING, 10, 11), activity::ACTIVE);
        assert_eq!(of_thread(state::SLEEPING, 10, 9), activity::INACTIVE);
        for active in [state::RUNNING, state::READY] {
            assert_eq!(of_thread(active, 10, 0), activity::ACTIVE);
        }
        for other in [state::THROTTLED, state::EXITED] {
            assert_eq!(of_thread(other, 10, 11), activity::INACTIVE);
        }
        assert_eq!(of_thread(state::UNKNOWN, 10, 11), activity::UNKNOWN);
    }

    #[test]
    fn snapshots_do_not_overlap() {
        let stride = stride(33);
        assert_eq!(stride, HEADER + 2);
        assert_eq!(start(0, stride), FIRST);
        assert_eq!(start(u64::from(RING) + 1, stride), FIRST + stride);
        assert_eq!(start(u64::from(RING) - 1, stride) + stride, words(33));
    }
}

//! What a thread does before its first event, from /proc.
//!
//! A vCPU that spins alone on its CPU may not be switched for minutes: the
//! programs see nothing of it, yet it runs. No event means that the thread has
//! been in one state ever since its registration, so what /proc says now holds
//! for all that time.

use crate::files;
use crate::probe::reading::ThreadState;

/// A runnable thread whose run time did not grow for this long has been
/// waiting. The kernel refreshes run times each tick (≤ 10 ms), and once a
/// second on CPUs without a tick.
const STARVED_NS: u64 = 2_000_000_000;

/// A thread's run time and waits when it was registered, ns; `None` where
/// /proc says nothing (gone, or a kernel without schedstats).
#[derive(Clone, Copy, Debug)]
pub struct Baseline(Option<(u64, u64)>);

impl Baseline {
    /// Of a thread, now.
    pub fn of(tid: u32) -> Self {
        Self(schedstat(tid))
    }

    /// Waits before the registration by the kernel's count; beyond any where it
    /// does not tell, so that the first wait is not taken for a long one.
    pub fn run_delay_ns(self) -> u64 {
        self.0.map_or(u64::MAX, |(_, delay)| delay)
    }

    /// State of a thread without events, `age_ns` after its registration.
    pub fn resolve(self, tid: u32, age_ns: u64) -> ThreadState {
        match (files::text(path(tid, "stat")), self.0, schedstat(tid)) {
            (Some(stat), Some((before, _)), Some((now, _))) => {
                classify(&stat, now > before, age_ns)
            }
            (Some(stat), ..) if !runnable(&stat) => ThreadState::Sleeping,
            _ => ThreadState::Unknown,
        }
    }
}

/// CPU that a thread was last on, `u32::MAX` if /proc does not say.
pub fn cpu(tid: u32) -> u32 {
    let stat = files::text(path(tid, "stat")).unwrap_or_default();
    processor(&stat).unwrap_or(u32::MAX)
}

/// Field 39 of stat; the state, field 3, is the first after the name.
fn processor(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(39 - 3)?.parse().ok()
}

fn classify(stat: &str, ran: bool, age_ns: u64) -> ThreadState {
    if !runnable(stat) {
        ThreadState::Sleeping
    } else if ran {
        ThreadState::Running
    } else if age_ns >= STARVED_NS {
        ThreadState::ReadyPreempt
    } else {
        ThreadState::Unknown
    }
}

/// Whether the state letter is R. The name before it is in parentheses and may
/// hold anything, parentheses too.
fn runnable(stat: &str) -> bool {
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
}

fn schedstat(tid: u32) -> Option<(u64, u64)> {
    let text = files::text(path(tid, "schedstat"))?;
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

fn path(tid: u32, file: &str) -> String {
    format!("/proc/{tid}/task/{tid}/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        assert!(runnable("7 (a) S) R 1 2"));
        assert!(!runnable("7 (a) R) S 1 2"));
        assert!(!runnable("7 (a"));
    }

    #[test]
    fn a_runnable_thread_runs_if_its_time_grew() {
        assert_eq!(classify("7 (a) R 1", true, 1), ThreadState::Running);
        assert_eq!(classify("7 (a) R 1", false, 1), ThreadState::Unknown);
        assert_eq!(
            classify("7 (a) R 1", false, STARVED_NS),
            ThreadState::ReadyPreempt
        );
        assert_eq!(
            classify("7 (a) S 1", true, STARVED_NS),
            ThreadState::Sleeping
        );
    }

    #[test]
    fn the_processor_is_field_39() {
        let fields: Vec<_> = (4..=52).map(|n: u32| n.to_string()).collect();
        assert_eq!(
            processor(&format!("7 (a b) R {}", fields.join(" "))),
            Some(39)
        );
        assert_eq!(processor("7 (a b) R 4 5"), None);
    }

    #[test]
    fn a_missing_thread_stays_unknown() {
        assert_eq!(
            Baseline::of(u32::MAX).resolve(u32::MAX, STARVED_NS),
            ThreadState::Unknown
        );
    }
}

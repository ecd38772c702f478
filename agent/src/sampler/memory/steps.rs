//! Events of the ladder, each at the best known time.

use super::stalls::Moment;
use crate::sampler::observe::ObserverEvent;

/// The steps, in the order in which a shortage takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Reclaim,
    CompactionStall,
    Swap,
    OomKill,
}

impl Step {
    const fn kind(self) -> &'static str {
        match self {
            Self::Reclaim => "memory_reclaim",
            Self::CompactionStall => "memory_compaction_stall",
            Self::Swap => "memory_swap",
            Self::OomKill => "memory_oom_kill",
        }
    }
}

/// The steps that one subject took in one tick, pushed in their order.
pub struct Steps {
    moment: Moment,
    taken: Vec<(Step, Option<i64>, String)>,
}

impl Steps {
    pub fn new(moment: Moment) -> Self {
        Self {
            moment,
            taken: Vec::new(),
        }
    }

    /// A step; `at_us` is its time where a probe saw it.
    pub fn push(&mut self, step: Step, at_us: Option<i64>, detail: String) {
        self.taken.push((step, at_us, detail));
    }

    /// The events. Files tell that a step was taken since the last tick, not
    /// when: it gets this tick's time, but stands before the steps that follow
    /// from it, for the kernel swaps while it reclaims, and kills when that did
    /// not help.
    pub fn events(self, subject: &str) -> Vec<ObserverEvent> {
        let mut next_us = i64::MAX;
        let mut events = Vec::new();
        for (step, at_us, detail) in self.taken.into_iter().rev() {
            let by_files = (self.moment.wall_us + step as i64).min(next_us.saturating_sub(1));
            let ts_us = at_us.unwrap_or(by_files);
            next_us = ts_us;
            events.push(ObserverEvent {
                ts_us,
                kind: step.kind(),
                subject: subject.to_owned(),
                detail,
            });
        }
        events.reverse();
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_steps_stand_before_what_follows_from_them() {
        let moment = Moment {
            wall_us: 1_000_000,
            mono_ns: 5_000_000_000,
            news_since_ns: 3_000_000_000,
        };
        let mut steps = Steps::new(moment);
        steps.push(Step::Reclaim, Some(400_000), String::new());
        steps.push(Step::Swap, None, String::new());
        steps.push(Step::OomKill, Some(900_000), String::new());
        let times: Vec<i64> = steps.events("vm/a").iter().map(|e| e.ts_us).collect();
        assert_eq!(times, [400_000, 899_999, 900_000]);
        let mut steps = Steps::new(moment);
        steps.push(Step::Reclaim, None, String::new());
        steps.push(Step::OomKill, None, String::new());
        let times: Vec<i64> = steps.events("vm/a").iter().map(|e| e.ts_us).collect();
        assert_eq!(times, [1_000_000, 1_000_003]);
    }

    #[test]
    fn an_episode_is_dated_if_it_is_news() {
        let moment = Moment {
            wall_us: 1_000_000,
            mono_ns: 5_000_000_000,
            news_since_ns: 3_000_000_000,
        };
        let since = |since_ns| headroom_abi::memory::Episode {
            since_ns,
            ..Default::default()
        };
        assert_eq!(moment.beginning(Some(&since(4_999_000_000))), Some(999_000));
        assert_eq!(
            moment.beginning(Some(&since(2_999_000_000))),
            None,
            "long ago"
        );
        assert_eq!(moment.beginning(None), None);
    }
}

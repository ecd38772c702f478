//! Keeping a sender's order when one of its batches is refused.

use std::collections::HashMap;

/// Senders with a refused batch whose repetition has not come yet.
///
/// High-water marks only work in order: if batch 4 is refused and 5, already
/// on its way, were stored, the repetition of 4 would look like a duplicate
/// and be lost. So everything behind a refused batch is refused too, until
/// the sender goes back.
#[derive(Debug, Default)]
pub struct Blocked {
    /// Number refused last by (sender, epoch).
    behind: HashMap<(String, u64), u64>,
}

impl Blocked {
    /// Whether that batch comes behind a refused one; if the sender went back
    /// instead, it is let through from here on.
    pub fn is_behind(&mut self, agent_id: &str, epoch: u64, seq: u64) -> bool {
        if self.behind.is_empty() {
            return false;
        }
        let key = (agent_id.to_string(), epoch);
        match self.behind.get_mut(&key) {
            Some(greatest) if seq > *greatest => {
                *greatest = seq;
                true
            }
            Some(_) => {
                self.behind.remove(&key);
                false
            }
            None => false,
        }
    }

    /// Notes a refusal. Also when the sender had gone back: what it sends
    /// next is behind this batch again.
    pub fn refuse(&mut self, agent_id: &str, epoch: u64, seq: u64) {
        self.behind.insert((agent_id.to_string(), epoch), seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_on_its_way_waits_for_the_repetition() {
        let mut blocked = Blocked::default();
        assert!(!blocked.is_behind("a", 1, 4));
        blocked.refuse("a", 1, 4);
        assert!(blocked.is_behind("a", 1, 5));
        assert!(blocked.is_behind("a", 1, 6));
        assert!(!blocked.is_behind("b", 1, 7), "another sender is free");
        assert!(!blocked.is_behind("a", 1, 4), "the repetition");
        assert!(!blocked.is_behind("a", 1, 5));
    }

    #[test]
    fn a_sender_that_dropped_the_refused_batch_gets_through() {
        let mut blocked = Blocked::default();
        blocked.refuse("a", 1, 4);
        assert!(blocked.is_behind("a", 1, 5));
        assert!(
            !blocked.is_behind("a", 1, 5),
            "repeated although 4 never came"
        );
    }

    #[test]
    fn a_repetition_that_is_refused_again_holds_back_the_next_repetition() {
        let mut blocked = Blocked::default();
        for seq in 4..=9 {
            blocked.refuse("a", 1, seq);
        }
        assert!(!blocked.is_behind("a", 1, 4));
        blocked.refuse("a", 1, 4);
        assert!(
            blocked.is_behind("a", 1, 5),
            "else 4 would look like a duplicate"
        );
    }
}

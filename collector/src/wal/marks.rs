//! High-water marks: which batches were seen, as one number per sender and epoch.

use std::collections::{BTreeMap, HashMap};

/// Epochs remembered per sender. A sender resends only what its spool held
/// when it restarted, so 64 restarts in a row without one ack are out of reach.
pub const EPOCHS_PER_AGENT: usize = 64;

/// Greatest sequence number by sender and epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    by_agent: HashMap<String, BTreeMap<u64, u64>>,
}

/// What the marks say of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not yet.
    New,
    /// Already.
    Duplicate,
    /// Its epoch is older than all that are remembered: nobody knows.
    Forgotten,
}

impl Marks {
    /// Whether that batch was recorded.
    pub fn seen(&self, agent_id: &str, epoch: u64, seq: u64) -> Seen {
        let Some(epochs) = self.by_agent.get(agent_id) else {
            return Seen::New;
        };
        match epochs.get(&epoch) {
            Some(mark) if seq <= *mark => Seen::Duplicate,
            Some(_) => Seen::New,
            None if epochs.len() < EPOCHS_PER_AGENT => Seen::New,
            None if epochs.keys().next().is_some_and(|oldest| epoch < *oldest) => Seen::Forgotten,
            None => Seen::New,
        }
    }

    /// Raises the mark; a lower number changes nothing.
    pub fn record(&mut self, agent_id: &str, epoch: u64, seq: u64) {
        let epochs = match self.by_agent.get_mut(agent_id) {
            Some(epochs) => epochs,
            None => self.by_agent.entry(agent_id.to_string()).or_default(),
        };
        let mark = epochs.entry(epoch).or_default();
        *mark = (*mark).max(seq);
        while epochs.len() > EPOCHS_PER_AGENT {
            epochs.pop_first();
        }
    }

    /// Raises all marks to those of a checkpoint.
    pub fn merge(&mut self, checkpoint: &Checkpoint) {
        for m in &checkpoint.marks {
            self.record(&m.agent_id, m.epoch, m.seq);
        }
    }

    /// The marks as a checkpoint.
    pub fn checkpoint(&self) -> Checkpoint {
        let marks = self.by_agent.iter().flat_map(|(agent_id, epochs)| {
            epochs.iter().map(|(epoch, seq)| Mark {
                agent_id: agent_id.clone(),
                epoch: *epoch,
                seq: *seq,
            })
        });
        Checkpoint {
            marks: marks.collect(),
        }
    }
}

/// Payload of a checkpoint record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Checkpoint {
    /// Every mark.
    #[prost(message, repeated, tag = "1")]
    pub marks: Vec<Mark>,
}

/// One mark.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mark {
    /// Sender.
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// Start of the sender's process, µs since 1970 UTC.
    #[prost(fixed64, tag = "2")]
    pub epoch: u64,
    /// Greatest sequence number seen.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_per_agent_and_epoch() {
        let mut m = Marks::default();
        m.record("a", 1, 5);
        m.record("a", 1, 3);
        assert_eq!(m.seen("a", 1, 5), Seen::Duplicate);
        assert_eq!(m.seen("a", 1, 6), Seen::New);
        assert_eq!(m.seen("a", 2, 1), Seen::New);
        assert_eq!(m.seen("b", 1, 1), Seen::New);
        let mut other = Marks::default();
        other.merge(&m.checkpoint());
        assert_eq!(other, m);
    }

    #[test]
    fn old_epochs_are_forgotten_not_taken_for_new() {
        let mut m = Marks::default();
        for epoch in 10..200 {
            m.record("a", epoch, 1);
        }
        assert_eq!(m.seen("a", 10, 2), Seen::Forgotten);
        assert_eq!(m.seen("a", 199, 2), Seen::New);
        assert_eq!(m.seen("a", 500, 1), Seen::New);
    }
}

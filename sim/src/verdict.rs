//! Whether all of it is there, once.

use std::fmt;

use anyhow::Context as _;

use crate::book::{Found, ROWS, State};

/// What came of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Of the trace.
    pub digest: u64,
    /// Agents.
    pub agents: usize,
    /// Batches made.
    pub batches: u64,
    /// Rows that the agents were told are stored.
    pub acked_rows: u64,
    /// Rows in the store.
    pub stored_rows: u64,
    /// Rows that agents dropped for want of room, and said so.
    pub dropped_rows: u64,
    /// Rows that died in the memory of killed agents.
    pub died_rows: u64,
    /// Batches that came again and were not stored again.
    pub repeated: u64,
    /// Batches refused for now.
    pub refused: u64,
    /// Ends of processes.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Rows that were queryable once and are not any more, and rows that
    /// nothing counts.
    pub lost: u64,
    /// Rows that are there more than once.
    pub duplicated: u64,
    /// Rows that are counted but can't be, of a kind that no loss explains.
    pub miscounted: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.lost + self.duplicated + self.miscounted == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "digest={:016x} agents={} batches={} acked_rows={} stored_rows={} dropped_rows={} died_rows={} \
             repeated={} refused={} crashes={} partitions={} lost={} duplicated={} miscounted={}",
            self.digest,
            self.agents,
            self.batches,
            self.acked_rows,
            self.stored_rows,
            self.dropped_rows,
            self.died_rows,
            self.repeated,
            self.refused,
            self.crashes,
            self.partitions,
            self.lost,
            self.duplicated,
            self.miscounted
        )
    }
}

/// Compares the book with what is there, `before` and `after` a last power
/// cut.
///
/// # Errors
/// An agent is not running.
pub fn verdict(
    book: &State,
    seen: &Found,
    before: &Found,
    after: &Found,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict {
        agents: book.agents.len(),
        acked_rows: book.acked_rows,
        repeated: book.counts.duplicate_batches,
        refused: book.counts.refused_batches,
        stored_rows: after.len() as u64,
        ..Verdict::default()
    };
    let gone = seen.keys().filter(|key| !after.contains_key(*key)).count();
    verdict.lost = gone as u64;
    let extra = |found: &Found| found.values().map(|n| u64::from(n - 1)).sum::<u64>();
    verdict.duplicated = extra(before).max(extra(after)).max(extra(seen));
    verdict.miscounted = book.counts.invalid_batches * ROWS;
    for number in 0..book.agents.len() {
        agent(book, number, after, &mut verdict)?;
    }
    Ok(verdict)
}

/// Made = stored + dropped + died, up to what a kill leaves open.
fn agent(book: &State, number: usize, after: &Found, verdict: &mut Verdict) -> anyhow::Result<()> {
    let stats = book.stats(number).context("an agent that does not run")?;
    let agent = &book.agents[number];
    let host = crate::book::host(number);
    let stored = after.keys().filter(|(_, h, _)| *h == host).count() as u64;
    let (made, died) = (agent.batches * ROWS, agent.died * ROWS);
    let told = stored + stats.dropped_rows + stats.damaged_rows + stats.rejected_rows;
    verdict.lost += (made - died).saturating_sub(told);
    // A kill between an ack and the note of it, with a spool that overflows
    // before the batch is sent again, counts a stored batch as dropped.
    verdict.miscounted += told.saturating_sub(made + agent.kills * ROWS);
    verdict.miscounted += stats.damaged_rows + stats.rejected_rows + stats.rows;
    verdict.batches += agent.batches;
    verdict.acked_rows += stats.acked_rows;
    verdict.dropped_rows += stats.dropped_rows;
    verdict.died_rows += died;
    Ok(())
}

//! What should be there, kept outside of all hosts, and what is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::AsArray as _;
use arrow::datatypes::TimestampMicrosecondType;
use headroom_agent::ship::{Queue, QueueStats};
use headroom_collector::embedded::{Counts, View};
use headroom_core::batch::{Batch, Chunk};
use headroom_core::metric::{SCHEMA_VERSION, TABLES};
use headroom_core::rows::{EVENTS, EventRow, HOSTS, HostRow};

/// Rows of table `events` in a batch; there is one of table `hosts` beside.
const EVENTS_A_BATCH: i64 = 3;
/// Rows of a batch.
pub const ROWS: u64 = 4;
/// 2026-01-01T00:00:00Z, µs.
const BEGIN: i64 = 1_767_225_600_000_000;
/// Between two rows of an agent, µs: batches reach over midnight.
const STEP: i64 = 7 * 60_000_000;

/// A row: table, host, time.
pub type Key = (&'static str, String, i64);
/// How often each row is there.
pub type Found = BTreeMap<Key, u32>;

/// Clones are the same book.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<State>>);

/// What is written in it.
#[derive(Default)]
pub struct State {
    /// By agent.
    pub agents: Vec<Agent>,
    /// The collector that runs, or ran last.
    pub collector: Option<View>,
    /// Whether the one that was started last is ready.
    pub ready: bool,
    /// No more batches are made.
    pub over: bool,
    /// Rows that were once queryable.
    pub seen: Found,
    /// Sums over the collectors that ended.
    pub counts: Counts,
    /// Rows acked, by agents that ended.
    pub acked_rows: u64,
}

/// What is known of one agent.
#[derive(Default)]
pub struct Agent {
    /// Batches made.
    pub batches: u64,
    /// Batches that died in the memory of a killed process.
    pub died: u64,
    /// Kills.
    pub kills: u64,
    /// Of the process that runs, or ran last.
    pub queue: Option<Arc<Queue>>,
}

impl Book {
    /// For some writing.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch of an agent.
    pub fn batch(&self, agent: usize, (agent_id, epoch): (&str, u64), now_us: i64) -> Batch {
        let mut state = self.lock();
        let made = i64::try_from(state.agents[agent].batches).unwrap_or(0);
        state.agents[agent].batches += 1;
        let host = host(agent);
        let ts = |n: i64| BEGIN + STEP * n;
        let first = made * EVENTS_A_BATCH;
        let events: Vec<EventRow> = (first..first + EVENTS_A_BATCH)
            .map(|n| EventRow {
                ts: ts(n),
                host: host.clone(),
                kind: "simulated".into(),
                subject: format!("host/{host}"),
                detail: n.to_string(),
            })
            .collect();
        let row = HostRow {
            ts: ts(first),
            host: host.clone(),
            ..HostRow::default()
        };
        Batch {
            agent_id: agent_id.to_owned(),
            host,
            epoch,
            seq: 0,
            made_at_us: now_us,
            schema_version: SCHEMA_VERSION,
            chunks: vec![Chunk::of(&events), Chunk::of(&[row])],
        }
    }
}

impl State {
    /// Before an agent's process ends.
    pub fn agent_ends(&mut self, agent: usize) {
        let here = &mut self.agents[agent];
        here.kills += 1;
        if let Some(queue) = here.queue.take() {
            here.died += queue.memory_batches() as u64;
            self.acked_rows += queue.stats().acked_rows;
        }
    }

    /// Before the collector's process ends, and at the end: notes which rows
    /// are there.
    ///
    /// # Errors
    /// A live file can't be read.
    pub fn observe(&mut self) -> Result<Found, headroom_collector::Error> {
        let found = match &self.collector {
            Some(view) => rows(view)?,
            None => Found::new(),
        };
        for (key, count) in &found {
            let most = self.seen.entry(key.clone()).or_default();
            *most = (*most).max(*count);
        }
        Ok(found)
    }

    /// After the collector's process ended.
    pub fn collector_ends(&mut self) {
        self.ready = false;
        let Some(view) = self.collector.take() else {
            return;
        };
        let (sum, counts) = (&mut self.counts, view.counts());
        sum.acked_rows += counts.acked_rows;
        sum.duplicate_batches += counts.duplicate_batches;
        sum.refused_batches += counts.refused_batches;
        sum.invalid_batches += counts.invalid_batches;
        sum.recovered_batches += counts.recovered_batches;
    }

    /// What an agent's queue says; nothing while it is down.
    pub fn stats(&self, agent: usize) -> Option<QueueStats> {
        self.agents[agent].queue.as_ref().map(|q| q.stats())
    }
}

/// Name of an agent's host.
pub fn host(agent: usize) -> String {
    format!("agent-{agent}")
}

fn rows(view: &View) -> Result<Found, headroom_collector::Error> {
    let mut found = Found::new();
    for table in [&EVENTS, &HOSTS] {
        debug_assert!(TABLES.iter().any(|t| t.name == table.name));
        for batch in view.rows(table)? {
            let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            let hosts = batch.column(1).as_string::<i32>();
            for (ts, host) in times.values().iter().zip(hosts.iter().flatten()) {
                *found.entry((table.name, host.to_owned(), *ts)).or_default() += 1;
            }
        }
    }
    Ok(found)
}

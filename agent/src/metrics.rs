//! What Prometheus scrapes from the agent: the series of its VMs and host, and
//! what it knows of itself.
//!
//! **Invariant:** a scrape reads what the last window left behind; it never
//! touches a probe, and nothing but additions is done for it in between.

mod catalogue;
mod endpoint;
mod serve;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headroom_core::batch::Chunk;
use headroom_core::exposition::{Form, Page, Usage};
use headroom_core::series::{Cells as _, Totals};

pub use catalogue::AGENT;
pub use serve::start;

use crate::clock;
use crate::ship::{Queue, QueueStats};

/// Longest text of a label: reasons are sentences.
const MAX_TEXT: usize = 200;

/// What is told at the next scrape.
pub struct Board {
    queue: Arc<Queue>,
    labels: Labels,
    interval: Duration,
    started: Duration,
    state: Mutex<State>,
}

/// What names the agent.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Host name in the rows.
    pub host: String,
    /// Stable id of the agent.
    pub agent_id: String,
    /// What measures: `tp_btf`, `raw_tp` or `schedstat`.
    pub source: String,
}

#[derive(Default)]
struct State {
    totals: Totals,
    /// Family, whether it measures, and what it lacks.
    families: Vec<(String, bool, String)>,
    windows: u32,
    missed: u64,
    made_rows: u64,
    last_end: Option<Duration>,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(queue: Arc<Queue>, labels: Labels, interval: Duration) -> Self {
        Self {
            queue,
            labels,
            interval,
            started: clock::wall(),
            state: Mutex::default(),
        }
    }

    /// Takes in the rows of a window that ended then.
    pub fn window(&self, chunks: &[Chunk], end: Duration) {
        let mut state = self.lock();
        if let Some(last) = state.last_end.replace(end) {
            let steps = end.saturating_sub(last).as_nanos() / self.interval.as_nanos().max(1);
            state.missed += u64::try_from(steps.saturating_sub(1)).unwrap_or(0);
        }
        state.windows += 1;
        let number = i64::from(state.windows);
        for chunk in chunks {
            state.made_rows += chunk.rows() as u64;
            for row in 0..chunk.rows() {
                state.totals.add(chunk.table, chunk, row, number);
            }
            if chunk.table.name == "probes" {
                state.families = families(chunk);
            }
        }
        // A VM that ended is told once more, with its last window.
        state.totals.retire(number);
    }

    /// The page.
    #[must_use]
    pub fn page(&self, form: Form) -> String {
        let mut page = Page::new(form);
        let stats = self.queue.stats();
        let problem = self.queue.spool_problem();
        let state = self.lock();
        state.totals.write(&mut page);
        self.write_own(&mut page, &state);
        drop(state);
        write_queue(&mut page, &stats, problem.is_none());
        usage().write(&mut page, self.started.as_secs_f64());
        page.finish()
    }

    fn write_own(&self, page: &mut Page, state: &State) {
        let Labels {
            host,
            agent_id,
            source,
        } = &self.labels;
        let version = env!("CARGO_PKG_VERSION");
        page.family(&catalogue::INFO)
            .sample(&[host, agent_id, source, version], 1.0);
        let mut up = page.family(&catalogue::PROBE_UP);
        for (family, works, reason) in &state.families {
            up.sample(&[host, family, reason], f64::from(u8::from(*works)));
        }
        page.single(&catalogue::WINDOWS, Some(f64::from(state.windows)));
        page.single(&catalogue::MISSED, Some(state.missed as f64));
        let last = state.last_end.map(|end| end.as_secs_f64());
        page.single(&catalogue::LAST_WINDOW, last);
        page.single(&catalogue::MADE_ROWS, Some(state.made_rows as f64));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Half a window is in it at worst, and the next one goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn families(chunk: &Chunk) -> Vec<(String, bool, String)> {
    let text = |column, row| chunk.text(column, row).unwrap_or_default();
    let family = |row| {
        let reason = text("reason", row).chars().take(MAX_TEXT).collect();
        let works = text("state", row) != "unavailable";
        (text("family", row).to_owned(), works, reason)
    };
    (0..chunk.rows()).map(family).collect()
}

fn write_queue(page: &mut Page, stats: &QueueStats, works: bool) {
    page.single(&catalogue::ACKED_ROWS, Some(stats.acked_rows as f64));
    let mut dropped = page.family(&catalogue::DROPPED_ROWS);
    for (cause, rows) in [
        ("no_room", stats.dropped_rows),
        ("rejected", stats.rejected_rows),
        ("damaged", stats.damaged_rows),
    ] {
        dropped.sample(&[cause], rows as f64);
    }
    page.single(&catalogue::WAITING_ROWS, Some(stats.rows as f64));
    page.single(&catalogue::WAITING_BATCHES, Some(stats.batches as f64));
    page.single(&catalogue::BUFFER_BYTES, Some(stats.bytes as f64));
    page.single(&catalogue::SPOOL_BYTES, Some(stats.disk_bytes as f64));
    page.single(&catalogue::SPOOL_UP, Some(f64::from(u8::from(works))));
    page.single(
        &catalogue::SPOOL_FAILURES,
        Some(stats.spool_failures as f64),
    );
}

fn usage() -> Usage {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    Usage::of(&read("/proc/self/stat"), &read("/proc/self/status"))
}

#[cfg(test)]
mod tests;

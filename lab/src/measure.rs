//! What headroom measures of the lab's guests: the agent's own sampler.

use std::time::{Duration, Instant};

use headroom_agent::clock;
use headroom_agent::sampler::{Sampler, SamplerOptions, Window};
use headroom_core::batch::ColumnData;
use headroom_core::hist::Hist;
use headroom_core::metric::{Kind, Table};
use serde_json::{Map, Value, json};

/// As often as the agent looks.
const TICK: Duration = Duration::from_secs(1);

/// A sampler on this host.
pub struct Meter {
    sampler: Sampler,
}

impl Meter {
    /// Attaches the probes.
    #[must_use]
    pub fn attach() -> Self {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Self {
            sampler: Sampler::new(SamplerOptions::new(host)),
        }
    }

    /// What the reader must know of the source.
    #[must_use]
    pub fn note(&self) -> String {
        match self.sampler.degraded() {
            Some(reason) => format!("headroom measured without BPF, from schedstat: {reason}"),
            None => format!("headroom measured by {}", self.sampler.source()),
        }
    }

    /// Ends the present window here; the next one begins.
    pub fn cut(&mut self) -> Window {
        self.sampler.tick();
        self.sampler.window(clock::micros(clock::wall()))
    }

    /// Lets time go by as in the agent. The window stays open.
    pub async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            tokio::time::sleep(left.min(TICK)).await;
            if left <= TICK {
                return;
            }
            self.sampler.tick();
        }
    }
}

/// Ready of a VM per vCPU over a window, percent, as headroom tells it.
#[must_use]
pub fn ready_pct(window: &Window, vm_name: &str) -> Option<f64> {
    let row = window.vms.iter().find(|vm| vm.vm_name == vm_name)?;
    Some(100.0 * row.ready_ratio)
}

/// Rows of one of headroom's tables that are about a VM; `None` when this
/// headroom has no such table.
#[must_use]
pub fn rows_of(window: &Window, table: &str, vm_name: &str) -> Option<Vec<Map<String, Value>>> {
    let about = headroom_core::metric::table(table)?
        .position("vm_name")
        .map(|_| "vm_name");
    let chunks = window.chunks();
    let mut rows = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.table.name == table) {
        rows.extend((0..chunk.rows()).map(|n| row(chunk.table, &chunk.columns, n)));
    }
    rows.retain(|row| match about {
        Some(column) => row.get(column).is_some_and(|value| *value == *vm_name),
        None => row.values().any(|value| *value == *vm_name),
    });
    // Host, time and id are the same in each and say nothing here.
    for row in &mut rows {
        row.retain(|key, _| !matches!(key.as_str(), "ts" | "host" | "vm_id"));
    }
    Some(rows)
}

fn row(table: &Table, columns: &[ColumnData], n: usize) -> Map<String, Value> {
    let cells = table.columns.iter().zip(columns);
    cells
        .map(|(column, data)| (column.name.to_owned(), cell(column.kind, data, n)))
        .collect()
}

fn cell(kind: Kind, data: &ColumnData, n: usize) -> Value {
    match data {
        ColumnData::Int(v) => v.get(n).copied().flatten().into(),
        ColumnData::Float(v) => v.get(n).copied().flatten().into(),
        ColumnData::Text(v) => v.get(n).cloned().flatten().into(),
        ColumnData::Bytes(v) => match v.get(n) {
            Some(Some(bytes)) if kind == Kind::Hist => hist(bytes),
            _ => Value::Null,
        },
    }
}

fn hist(bytes: &[u8]) -> Value {
    let Ok(hist) = Hist::decode(bytes) else {
        return Value::Null;
    };
    json!({"count": hist.total(), "p50_ns": hist.quantile(0.5), "p99_ns": hist.quantile(0.99)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_core::batch::Chunk;
    use headroom_core::rows::VcpuRow;

    #[test]
    fn rows_of_a_vm_by_name_with_the_unavailable_as_null() {
        let mut waits = Hist::default();
        waits.record(1_000_000, 3);
        let row = |vm: &str| VcpuRow {
            vm_name: vm.to_owned(),
            ready_ns: 7,
            ready_hist: Some(waits.encode()),
            ..VcpuRow::default()
        };
        let window = Window {
            more: vec![Chunk::of(&[row("victim"), row("other")])],
            ..Window::default()
        };
        let rows = rows_of(&window, "vcpus", "victim").expect("a table");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["ready_ns"], 7);
        assert_eq!(rows[0]["ready_hist"]["count"], 3);
        assert!(rows[0]["throttled_ns"].is_null());
        assert_eq!(rows_of(&window, "no such table", "victim"), None);
    }
}

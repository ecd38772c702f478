//! Rows of table `vm_queues`.

use headroom_agent::sampler::Window;
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::hist::Hist;

/// One row, as far as the tests look at it.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "some are for the reader of a failure")]
pub struct Queue {
    pub backend: String,
    pub kind: String,
    pub source: String,
    pub kicks: Option<i64>,
    pub polled: Option<i64>,
    pub wakes: i64,
    pub pickups: i64,
    pub pickup_max_ns: i64,
    pub pickup_p50_ns: Option<u64>,
    pub pending_ns: i64,
    pub completions: i64,
    pub completion_p50_ns: Option<u64>,
    pub injects: Option<i64>,
    pub inject_wakes: Option<i64>,
    pub inject_p50_ns: Option<u64>,
}

impl Queue {
    /// Those of the VM of that name.
    pub fn of(window: &Window, vm: &str) -> Vec<Self> {
        let chunks = window.more.iter().filter(|c| c.table.name == "vm_queues");
        chunks
            .flat_map(|chunk| (0..chunk.rows()).map(move |row| (chunk, row)))
            .filter(|(chunk, row)| text(chunk, "vm_name", *row) == vm)
            .map(|(chunk, row)| Self::at(chunk, row))
            .collect()
    }

    fn at(chunk: &Chunk, row: usize) -> Self {
        let int = |name: &str| int(chunk, name, row);
        let p50 = |name: &str| hist(chunk, name, row)?.quantile(0.5);
        Self {
            backend: text(chunk, "backend", row),
            kind: text(chunk, "kind", row),
            source: text(chunk, "source", row),
            kicks: int("kicks"),
            polled: int("polled"),
            wakes: int("wakes").unwrap(),
            pickups: int("pickups").unwrap(),
            pickup_max_ns: int("pickup_max_ns").unwrap(),
            pickup_p50_ns: p50("pickup_hist"),
            pending_ns: int("pending_ns").unwrap(),
            completions: int("completions").unwrap(),
            completion_p50_ns: p50("completion_hist"),
            injects: int("injects"),
            inject_wakes: int("inject_wakes"),
            inject_p50_ns: p50("inject_hist"),
        }
    }
}

fn column<'a>(chunk: &'a Chunk, name: &str) -> &'a ColumnData {
    &chunk.columns[chunk.table.position(name).unwrap()]
}

fn text(chunk: &Chunk, name: &str, row: usize) -> String {
    match column(chunk, name) {
        ColumnData::Text(values) => values[row].clone().unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

fn int(chunk: &Chunk, name: &str, row: usize) -> Option<i64> {
    match column(chunk, name) {
        ColumnData::Int(values) => values[row],
        other => panic!("{name}: {other:?}"),
    }
}

fn hist(chunk: &Chunk, name: &str, row: usize) -> Option<Hist> {
    match column(chunk, name) {
        ColumnData::Bytes(values) => Some(Hist::decode(values[row].as_ref()?).unwrap()),
        other => panic!("{name}: {other:?}"),
    }
}

//! Rows of a chunk by column name.

use std::collections::BTreeMap;

use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::hist::Hist;

/// A row; NULL is absent.
#[derive(Debug, Default)]
pub struct Row {
    texts: BTreeMap<&'static str, String>,
    ints: BTreeMap<&'static str, i64>,
    floats: BTreeMap<&'static str, f64>,
    hists: BTreeMap<&'static str, Vec<u8>>,
}

/// All rows of a table.
pub fn rows(chunks: &[Chunk], table: &str) -> Vec<Row> {
    let chunks = chunks.iter().filter(|c| c.table.name == table);
    chunks
        .flat_map(|chunk| (0..chunk.rows()).map(|i| Row::of(chunk, i)))
        .collect()
}

impl Row {
    fn of(chunk: &Chunk, i: usize) -> Self {
        let mut row = Self::default();
        for (column, data) in chunk.table.columns.iter().zip(&chunk.columns) {
            match data {
                ColumnData::Int(v) => row.ints.extend(v[i].map(|v| (column.name, v))),
                ColumnData::Float(v) => row.floats.extend(v[i].map(|v| (column.name, v))),
                ColumnData::Text(v) => row.texts.extend(v[i].clone().map(|v| (column.name, v))),
                ColumnData::Bytes(v) => row.hists.extend(v[i].clone().map(|v| (column.name, v))),
            }
        }
        row
    }

    pub fn text(&self, column: &str) -> &str {
        &self.texts[column]
    }

    pub fn int(&self, column: &str) -> i64 {
        self.ints[column]
    }

    pub fn opt_int(&self, column: &str) -> Option<i64> {
        self.ints.get(column).copied()
    }

    pub fn float(&self, column: &str) -> f64 {
        self.floats[column]
    }

    /// A histogram, and its mode, ns.
    pub fn hist(&self, column: &str) -> (Hist, u64) {
        let hist = Hist::decode(&self.hists[column]).expect("a histogram");
        let counts = hist.counts().iter().enumerate();
        let mode = counts.max_by_key(|(_, n)| **n).expect("buckets").0;
        (hist, headroom_core::hist::midpoint(mode))
    }
}

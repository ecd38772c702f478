//! Rows in memory, merged as they grow so that a query scans few batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

/// Batches of one size class that are merged into one of the next.
const FAN: usize = 16;

/// Rows in memory.
#[derive(Debug)]
pub struct HotBatch {
    /// Its name in this process, never given twice: query processes keep
    /// batches by it.
    pub id: u64,
    /// The rows.
    pub rows: RecordBatch,
    /// What they take, bytes.
    pub bytes: u64,
    /// How often they were merged.
    class: u8,
}

/// Adds rows; gives the bytes they take. Each row is copied once per size
/// class, so 16^n batches cost n copies and leave at most 16·n batches.
pub fn push(hot: &mut Vec<Arc<HotBatch>>, rows: RecordBatch) -> u64 {
    let bytes = rows.get_array_memory_size() as u64;
    hot.push(Arc::new(HotBatch {
        id: next_id(),
        rows,
        bytes,
        class: 0,
    }));
    for class in 0..u8::MAX {
        let equal = hot.iter().rev().take_while(|b| b.class == class).count();
        if equal < FAN {
            break;
        }
        let from = hot.len() - equal;
        // All have the declared schema; if they can't be merged they stay.
        let Ok(rows) = concat_batches(
            &hot[from].rows.schema(),
            hot[from..].iter().map(|b| &b.rows),
        ) else {
            break;
        };
        // What was counted when they came is what is given back on a flush.
        let bytes = hot[from..].iter().map(|b| b.bytes).sum();
        hot.truncate(from);
        hot.push(Arc::new(HotBatch {
            id: next_id(),
            rows,
            bytes,
            class: class + 1,
        }));
    }
    bytes
}

impl HotBatch {
    /// Rows that another process gave that name.
    pub fn named(id: u64, rows: RecordBatch) -> Self {
        let bytes = rows.get_array_memory_size() as u64;
        Self {
            id,
            rows,
            bytes,
            class: 0,
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

//! Batches that the collector has not acked.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headroom_proto::{MAX_MESSAGE_BYTES, v1};
use prost::Message as _;
use tokio::sync::Notify;

/// Bytes an entry takes beside its batch.
const ENTRY_BYTES: usize = 64;

/// A bounded queue: the oldest batch goes when a new one does not fit.
/// Batches are kept in their wire form, so the bound is on real memory.
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    limit_bytes: usize,
}

/// What the queue holds and what it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Batches waiting for an ack.
    pub batches: usize,
    /// Rows in them.
    pub rows: u64,
    /// Memory they take.
    pub bytes: usize,
    /// Rows dropped because the queue was full.
    pub dropped_rows: u64,
    /// Rows that the collector refused for ever.
    pub rejected_rows: u64,
    /// Rows acked.
    pub acked_rows: u64,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Number of the first entry once it was handed out.
    head_seq: Option<u64>,
    last_seq: u64,
    closed: bool,
    stats: QueueStats,
}

struct Entry {
    wire: Vec<u8>,
    rows: u64,
}

impl Queue {
    /// An empty queue of at most that many bytes.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            limit_bytes,
        }
    }

    /// Appends a batch; its `seq` is set when it is sent. Drops the oldest
    /// batches that were never sent when there is no room.
    pub fn push(&self, batch: &v1::Batch) {
        let rows = batch.chunks.iter().map(|c| u64::from(c.rows)).sum();
        let entry = Entry {
            wire: batch.encode_to_vec(),
            rows,
        };
        let mut state = self.lock();
        let first = usize::from(state.head_seq.is_some());
        while state.stats.bytes + entry.cost() > self.limit_bytes
            && let Some(oldest) = state.entries.remove(first)
        {
            state.forget(&oldest);
            state.stats.dropped_rows += oldest.rows;
        }
        // The number adds some bytes.
        let sendable = entry.wire.len() + ENTRY_BYTES <= MAX_MESSAGE_BYTES;
        if !sendable || state.stats.bytes + entry.cost() > self.limit_bytes {
            state.stats.dropped_rows += entry.rows;
            return;
        }
        state.stats.bytes += entry.cost();
        state.stats.batches += 1;
        state.stats.rows += entry.rows;
        state.entries.push_back(entry);
        drop(state);
        self.changed.notify_one();
    }

    /// No more batches will come: [`Self::head`] ends when the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The oldest batch, with its number; the same one until it is acked or
    /// rejected. Waits for one; `None` once the queue is closed and empty.
    /// For one caller at a time.
    pub async fn head(&self) -> Option<v1::Batch> {
        loop {
            {
                let mut state = self.lock();
                if let Some(batch) = state.number_head() {
                    return Some(batch);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// The batch of that number is stored; false for another number than
    /// [`Self::head`]'s.
    pub fn acked(&self, seq: u64) -> bool {
        let mut state = self.lock();
        let entry = state.take_head(seq);
        state.stats.acked_rows += entry.as_ref().map_or(0, |e| e.rows);
        entry.is_some()
    }

    /// The batch of that number will never be stored; gives its rows.
    pub fn rejected(&self, seq: u64) -> Option<u64> {
        let mut state = self.lock();
        let entry = state.take_head(seq)?;
        state.stats.rejected_rows += entry.rows;
        Some(entry.rows)
    }

    /// What the queue holds and what it lost.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number_head(&mut self) -> Option<v1::Batch> {
        let wire = &self.entries.front()?.wire;
        let seq = *self.head_seq.get_or_insert_with(|| {
            self.last_seq += 1;
            self.last_seq
        });
        // Its own encoding, a moment ago: decoding cannot fail.
        let batch = v1::Batch::decode(wire.as_slice()).unwrap_or_default();
        Some(v1::Batch { seq, ..batch })
    }

    fn take_head(&mut self, seq: u64) -> Option<Entry> {
        if self.head_seq != Some(seq) {
            return None;
        }
        self.head_seq = None;
        let entry = self.entries.pop_front()?;
        self.forget(&entry);
        Some(entry)
    }

    fn forget(&mut self, entry: &Entry) {
        self.stats.bytes -= entry.cost();
        self.stats.batches -= 1;
        self.stats.rows -= entry.rows;
    }
}

impl Entry {
    fn cost(&self) -> usize {
        self.wire.capacity() + ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests;

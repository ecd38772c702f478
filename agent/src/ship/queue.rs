//! Batches that the collector has not acked.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headroom_proto::{MAX_MESSAGE_BYTES, v1};
use prost::Message as _;
use tokio::sync::Notify;

use super::spool::Amount;

/// Bytes an entry takes beside its batch.
const ENTRY_BYTES: usize = 64;

/// The batches in their order: the older ones on the disk, if there is a
/// [`super::Keeper`], the newer ones in memory until it has written them. The
/// memory is bounded: the oldest batch there goes when a new one does not fit.
/// Batches are kept in their wire form, so the bound is on real memory.
///
/// No caller waits for the disk: the lock is never held over a file operation.
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    work: Condvar,
    limit_bytes: usize,
}

/// What the queue holds and what it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Batches waiting for an ack, in memory and on the disk.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// Memory they take.
    pub bytes: usize,
    /// Bytes of the spool's files.
    pub disk_bytes: u64,
    /// Rows dropped for want of room, since the spool was made.
    pub dropped_rows: u64,
    /// Rows that the collector refused for ever.
    pub rejected_rows: u64,
    /// Rows lost because the spool was damaged, as far as known.
    pub damaged_rows: u64,
    /// Operations of the spool that failed.
    pub spool_failures: u64,
    /// Rows acked.
    pub acked_rows: u64,
}

#[derive(Default)]
pub(super) struct State {
    /// At most the first is [`Stage::Kept`]; the others are not on the disk.
    pub entries: VecDeque<Entry>,
    /// Batches on the disk before the entries that are not [`Stage::Kept`].
    pub disk: Amount,
    /// Nobody knows yet what is on the disk.
    pub opening: bool,
    /// The kept batch was acked or rejected, and the spool does not know.
    pub settled: bool,
    /// Rows dropped from memory that the spool does not know of.
    pub dropped_from_memory: u64,
    /// Whether the first entry was handed out.
    sent: bool,
    last_seq: u64,
    closed: bool,
    /// The keeper is to write what is left and to end.
    pub stopping: bool,
    /// Why the spool can't be used; `None` when it can.
    pub spool_problem: Option<String>,
    pub stats: QueueStats,
}

pub(super) struct Entry {
    pub wire: Arc<[u8]>,
    pub rows: u64,
    pub stage: Stage,
    name: (u64, u64),
}

/// How far an entry is on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In memory only.
    Memory,
    /// Being written, so not to be dropped.
    Writing,
    /// On the disk as well, and held there.
    Kept,
}

/// What became of a batch while it was written.
pub(super) enum Written {
    /// It is on the disk only.
    OnDisk,
    /// It is the oldest and kept in memory as well.
    Kept,
    /// It was acked or rejected meanwhile.
    Settled,
}

impl Queue {
    /// An empty queue of at most that many bytes of memory.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            work: Condvar::new(),
            limit_bytes,
        }
    }

    /// Appends a batch and gives it the next number of its epoch, which it
    /// keeps for ever. Drops the oldest batches in memory that were never sent
    /// when there is no room.
    pub fn push(&self, mut batch: v1::Batch) {
        let mut state = self.lock();
        state.last_seq += 1;
        batch.seq = state.last_seq;
        let entry = Entry::new(&batch);
        drop(batch);
        while state.stats.bytes + entry.cost() > self.limit_bytes
            && let Some(oldest) = state.droppable()
        {
            state.forget(&oldest);
            state.drop_rows(oldest.rows);
        }
        let sendable = entry.wire.len() <= MAX_MESSAGE_BYTES;
        if sendable && state.stats.bytes + entry.cost() <= self.limit_bytes {
            state.remember(&entry);
            state.entries.push_back(entry);
        } else {
            state.drop_rows(entry.rows);
        }
        drop(state);
        self.notify();
    }

    /// No more batches will come: [`Self::head`] ends when the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.notify();
    }

    /// The oldest batch; the same one until it is acked or rejected. Waits for
    /// one; `None` once the queue is closed and empty. For one caller at a
    /// time.
    pub async fn head(&self) -> Option<v1::Batch> {
        loop {
            {
                let mut state = self.lock();
                if let Some(batch) = state.head() {
                    return Some(batch);
                }
                if state.closed && state.is_empty() {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// The batch of that epoch and number is stored; false for another one
    /// than [`Self::head`]'s.
    pub fn acked(&self, epoch: u64, seq: u64) -> bool {
        let rows = self.settle((epoch, seq));
        self.lock().stats.acked_rows += rows.unwrap_or(0);
        rows.is_some()
    }

    /// That batch will never be stored; gives its rows.
    pub fn rejected(&self, epoch: u64, seq: u64) -> Option<u64> {
        let rows = self.settle((epoch, seq))?;
        self.lock().stats.rejected_rows += rows;
        Some(rows)
    }

    /// Why batches are in memory only; `None` when the spool works, or when
    /// there is none.
    #[must_use]
    pub fn spool_problem(&self) -> Option<String> {
        self.lock().spool_problem.clone()
    }

    /// What the queue holds and what it lost.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.lock().stats
    }

    /// Whether nobody knows yet what is on the disk.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.lock().opening
    }

    /// Batches that are in memory and not on the disk.
    #[must_use]
    pub fn memory_batches(&self) -> usize {
        let state = self.lock();
        let memory = state.entries.iter().filter(|e| e.stage != Stage::Kept);
        memory.count()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changed, or that long.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self.work.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn notify(&self) {
        self.work.notify_one();
        self.changed.notify_one();
    }

    fn settle(&self, name: (u64, u64)) -> Option<u64> {
        let mut state = self.lock();
        if !state.sent || state.entries.front()?.name != name {
            return None;
        }
        let entry = state.entries.pop_front()?;
        state.sent = false;
        state.settled |= entry.stage == Stage::Kept;
        state.forget(&entry);
        drop(state);
        self.notify();
        Some(entry.rows)
    }
}

impl State {
    /// The next batch to send, unless it is still on the disk only.
    pub fn head(&mut self) -> Option<v1::Batch> {
        if !self.is_head() || self.opening {
            return None;
        }
        let wire = &self.entries.front()?.wire;
        // Encoded by this program, and checked when it was read back.
        let batch = v1::Batch::decode(&wire[..]).unwrap_or_default();
        self.sent = true;
        Some(batch)
    }

    /// Whether the first entry is the oldest batch of all.
    pub fn is_head(&self) -> bool {
        self.sent
            || self
                .entries
                .front()
                .is_some_and(|first| first.stage == Stage::Kept || self.disk.batches == 0)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.disk.batches == 0 && !self.opening
    }

    fn droppable(&mut self) -> Option<Entry> {
        let at = self
            .entries
            .iter()
            .enumerate()
            .position(|(i, entry)| entry.stage == Stage::Memory && !(i == 0 && self.sent))?;
        self.entries.remove(at)
    }

    fn drop_rows(&mut self, rows: u64) {
        self.stats.dropped_rows += rows;
        self.dropped_from_memory += rows;
    }

    fn remember(&mut self, entry: &Entry) {
        self.stats.bytes += entry.cost();
        self.stats.batches += 1;
        self.stats.rows += entry.rows;
    }

    fn forget(&mut self, entry: &Entry) {
        self.stats.bytes -= entry.cost();
        self.stats.batches -= 1;
        self.stats.rows -= entry.rows;
    }

    /// The oldest entry that is to go to the disk. Not one that was sent
    /// before an older one was found there: the order would not be kept.
    pub fn unwritten(&mut self) -> Option<&mut Entry> {
        let skip = usize::from(self.sent && self.disk.batches > 0);
        let mut entries = self.entries.iter_mut().skip(skip);
        entries.find(|entry| entry.stage == Stage::Memory)
    }

    /// The entry that was being written is on the disk, or is not.
    pub fn written(&mut self, ok: bool) -> Written {
        let writing = |entry: &Entry| entry.stage == Stage::Writing;
        let Some(at) = self.entries.iter().position(writing) else {
            return Written::Settled;
        };
        if !ok {
            self.entries[at].stage = Stage::Memory;
        } else if at == 0 && self.disk.batches == 0 {
            self.entries[at].stage = Stage::Kept;
            return Written::Kept;
        } else if let Some(entry) = self.entries.remove(at) {
            self.stats.bytes -= entry.cost();
            self.disk.batches += 1;
            self.disk.rows += entry.rows;
        }
        Written::OnDisk
    }

    /// The oldest batch on the disk is in memory too.
    pub fn loaded(&mut self, entry: Entry) {
        self.stats.bytes += entry.cost();
        self.disk.batches -= 1;
        self.disk.rows -= entry.rows;
        self.entries.push_front(entry);
    }

    /// Batches on the disk were dropped.
    pub fn dropped_on_disk(&mut self, amount: Amount) {
        self.gone(amount);
        self.stats.dropped_rows += amount.rows;
    }

    /// Batches on the disk were damaged.
    pub fn lost(&mut self, amount: Amount) {
        self.gone(amount);
        self.stats.damaged_rows += amount.rows;
    }

    fn gone(&mut self, amount: Amount) {
        self.disk.batches -= amount.batches;
        self.disk.rows -= amount.rows;
        self.stats.batches -= amount.batches;
        self.stats.rows -= amount.rows;
    }
}

impl Entry {
    fn new(batch: &v1::Batch) -> Self {
        Self {
            wire: batch.encode_to_vec().into(),
            rows: batch.chunks.iter().map(|c| u64::from(c.rows)).sum(),
            stage: Stage::Memory,
            name: (batch.epoch, batch.seq),
        }
    }

    /// One read back from the disk.
    pub fn read(batch: &v1::Batch, wire: Vec<u8>, rows: u64) -> Self {
        Self {
            wire: wire.into(),
            rows,
            stage: Stage::Kept,
            name: (batch.epoch, batch.seq),
        }
    }

    fn cost(&self) -> usize {
        self.wire.len() + ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests;

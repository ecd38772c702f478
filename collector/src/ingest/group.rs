//! Group commit: many batches, one `fdatasync`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::order::Blocked;
use super::{Counters, Limits, Outcome, Prepared, Request};
use crate::error::chain;
use crate::remote_write::Feed;
use crate::store::Store;
use crate::wal::{Entry, Lsn, Seen, Wal};

/// After a failed write: the pause before the disk is tried again, and the
/// hint to senders.
const RETRY: Duration = Duration::from_secs(1);

/// The task that appends.
pub struct Committer {
    wal: Arc<Mutex<Wal>>,
    store: Arc<Store>,
    limits: Limits,
    counters: Arc<Counters>,
    feed: Option<Feed>,
    blocked: Blocked,
    /// After a failed write: not before.
    pause: Option<(Instant, String)>,
}

/// Batches that share a sync.
#[derive(Default)]
struct Group {
    batches: Vec<(Prepared, oneshot::Sender<Outcome>)>,
    /// Repetitions of batches of this group: acked when these are.
    repeated: Vec<(Entry, oneshot::Sender<Outcome>)>,
    /// Greatest number in this group by sender and epoch.
    greatest: HashMap<(String, u64), u64>,
    bytes: u64,
    memory: u64,
}

impl Committer {
    pub fn new(
        wal: Arc<Mutex<Wal>>,
        store: Arc<Store>,
        limits: Limits,
        counters: Arc<Counters>,
        feed: Option<Feed>,
    ) -> Self {
        Self {
            wal,
            store,
            limits,
            counters,
            feed,
            blocked: Blocked::default(),
            pause: None,
        }
    }

    /// Runs until every sender is gone and the queue is empty.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.recv().await {
            let deadline = Instant::now() + self.limits.wait;
            let mut group = Group::default();
            self.sort_in(first, &mut group);
            while group.bytes < self.limits.bytes && !group.batches.is_empty() {
                match tokio::time::timeout_at(deadline, requests.recv()).await {
                    Ok(Some(request)) => self.sort_in(request, &mut group),
                    Ok(None) | Err(_) => break,
                }
            }
            self.commit(group).await;
        }
    }

    fn sort_in(&mut self, Request { batch, reply }: Request, group: &mut Group) {
        let entry = &batch.entry;
        let key = (entry.agent_id.clone(), entry.epoch);
        if group.greatest.get(&key).is_some_and(|g| entry.seq <= *g) && self.dedupes() {
            group.repeated.push((batch.entry, reply));
            return;
        }
        let seen = self
            .wal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .marks()
            .seen(&key.0, key.1, entry.seq);
        match seen {
            Seen::Duplicate if self.dedupes() => {
                self.counters
                    .duplicate_batches
                    .fetch_add(1, Ordering::Relaxed);
                let _ = reply.send(Outcome::Duplicate);
            }
            Seen::Forgotten => {
                self.counters
                    .invalid_batches
                    .fetch_add(1, Ordering::Relaxed);
                let reason = "its epoch is older than the last 64 of this agent: whether it was stored is not known";
                let _ = reply.send(Outcome::Invalid(reason.into()));
            }
            Seen::New | Seen::Duplicate => match self.obstacle(&batch, group) {
                Some(reason) => {
                    self.counters
                        .refused_rows
                        .fetch_add(batch.rows, Ordering::Relaxed);
                    self.refuse(&batch.entry, reply, reason);
                }
                None => {
                    group.greatest.insert(key, entry.seq);
                    group.bytes += entry.payload.len() as u64;
                    group.memory += memory(&batch);
                    group.batches.push((batch, reply));
                }
            },
        }
    }

    fn dedupes(&self) -> bool {
        self.limits.dedupe && dedupe()
    }

    /// Why a batch can't be taken now.
    fn obstacle(&mut self, batch: &Prepared, group: &Group) -> Option<String> {
        let entry = &batch.entry;
        if let Some((until, reason)) = &self.pause {
            if Instant::now() < *until {
                return Some(reason.clone());
            }
            self.pause = None;
        }
        if self.store.hot_bytes() + group.memory + memory(batch) > self.limits.hot {
            let reason =
                "rows in memory are at collector.hot_limit until they are written to Parquet";
            self.counters.set_refusing(reason);
            return Some(reason.into());
        }
        let behind = self
            .blocked
            .is_behind(&entry.agent_id, entry.epoch, entry.seq);
        behind.then(|| "an earlier batch was refused: send that one first".to_string())
    }

    fn refuse(&mut self, entry: &Entry, reply: oneshot::Sender<Outcome>, reason: String) {
        self.counters
            .refused_batches
            .fetch_add(1, Ordering::Relaxed);
        self.blocked.refuse(&entry.agent_id, entry.epoch, entry.seq);
        let _ = reply.send(Outcome::Refused {
            reason,
            retry: RETRY,
        });
    }

    async fn commit(&mut self, group: Group) {
        if group.batches.is_empty() {
            return;
        }
        let entries: Vec<Entry> = group.batches.iter().map(|(b, _)| b.entry.clone()).collect();
        let wal = Arc::clone(&self.wal);
        let appended = crate::blocking::run(move || {
            wal.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(&entries)
        });
        match appended.await {
            Ok(Ok(lsns)) => self.acknowledge(group, lsns),
            Ok(Err(error)) => self.refuse_all(group, &chain(&error)),
            Err(error) => self.refuse_all(group, &error.to_string()),
        }
    }

    fn acknowledge(&self, group: Group, lsns: Vec<Lsn>) {
        self.counters.set_refusing("");
        let rows: u64 = group.batches.iter().map(|(b, _)| b.rows).sum();
        self.counters
            .acked_batches
            .fetch_add(group.batches.len() as u64, Ordering::Relaxed);
        for (batch, _) in &group.batches {
            self.counters
                .senders
                .saw(&batch.entry.agent_id, &batch.host);
            if let Some(feed) = &self.feed {
                feed.offer(&batch.chunks);
            }
        }
        let (batches, replies): (Vec<_>, Vec<_>) = group
            .batches
            .into_iter()
            .zip(lsns)
            .map(|((b, reply), lsn)| ((lsn, b.chunks), reply))
            .unzip();
        self.store.append(batches);
        self.counters.acked_rows.fetch_add(rows, Ordering::Relaxed);
        self.counters
            .duplicate_batches
            .fetch_add(group.repeated.len() as u64, Ordering::Relaxed);
        for reply in replies {
            let _ = reply.send(Outcome::Stored);
        }
        for (_, reply) in group.repeated {
            let _ = reply.send(Outcome::Duplicate);
        }
    }

    fn refuse_all(&mut self, group: Group, error: &str) {
        let reason = format!("the log can't be written: {error}");
        self.counters.set_refusing(&reason);
        self.pause = Some((Instant::now() + RETRY, reason.clone()));
        for (batch, reply) in group.batches {
            self.counters
                .refused_rows
                .fetch_add(batch.rows, Ordering::Relaxed);
            self.refuse(&batch.entry, reply, reason.clone());
        }
        for (entry, reply) in group.repeated {
            self.refuse(&entry, reply, reason.clone());
        }
    }
}

fn memory(batch: &Prepared) -> u64 {
    batch
        .chunks
        .iter()
        .map(|(_, rows)| rows.get_array_memory_size() as u64)
        .sum()
}

#[cfg(test)]
use super::tests::dedupe;

#[cfg(not(test))]
const fn dedupe() -> bool {
    true
}

//! The thread between the queue's memory and the disk: the only one that
//! waits for the spool's files.
//!
//! A batch is written as soon as it is there, which a killed agent survives.
//! It is made durable a second later if it is still waiting then, for power
//! cuts: with a collector that answers nothing is ever synced.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headroom_proto::v1;
use prost::Message as _;

use super::queue::{Entry, Queue, Stage, State, Written};
use super::spool::{Amount, Next, Spool};

/// How long a batch may be on the disk without being durable.
const SYNC: Duration = Duration::from_secs(1);
/// After a failed operation: how long the disk is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// A running thread.
pub struct Keeper {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Puts a spool of at most `cap` bytes under the queue. What it holds from
    /// earlier processes goes first. A spool that can't be used is tried again
    /// and until then the queue is in memory only.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(queue: &Arc<Queue>, dir: PathBuf, cap: u64) -> io::Result<Self> {
        let work = Work::new(queue, dir, cap);
        let thread = std::thread::Builder::new().name("spool".into());
        Ok(Self {
            queue: queue.clone(),
            thread: thread.spawn(move || work.run())?,
        })
    }

    /// Writes what is only in memory and makes it durable; false if that took
    /// longer than `limit`, as on a disk that hangs.
    pub async fn finish(self, limit: Duration) -> bool {
        self.queue.lock().stopping = true;
        self.queue.notify();
        let ended = async {
            // Joining could last as long as the disk hangs.
            while !self.thread.is_finished() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

/// The keeper's work without its thread, for simulated time: it looks for the
/// next piece `pace` after the last one, and ends as [`Keeper::finish`] would.
pub fn keep(
    queue: &Arc<Queue>,
    dir: PathBuf,
    cap: u64,
    pace: fn() -> Duration,
) -> impl Future<Output = ()> + Send + 'static {
    let mut work = Work::new(queue, dir, cap);
    async move {
        loop {
            tokio::time::sleep(pace()).await;
            let queue = work.queue.clone();
            let task = work.look(&mut queue.lock());
            if task.is_some_and(|task| work.perform(task).is_break()) {
                return;
            }
        }
    }
}

struct Work {
    queue: Arc<Queue>,
    dir: PathBuf,
    cap: u64,
    spool: Option<Spool>,
    dirty_since: Option<Instant>,
    /// After a failure: not before.
    pause: Option<Instant>,
    failures: u32,
    /// Whether the disk was tried once more at the end.
    last_try: bool,
}

/// What to do next.
enum Task {
    Open,
    /// The held batch is done, and that many rows were dropped from memory.
    Settle(bool, u64),
    Load,
    Write(Arc<[u8]>, u64),
    Sync,
    End,
}

impl Work {
    fn new(queue: &Arc<Queue>, dir: PathBuf, cap: u64) -> Self {
        queue.lock().opening = true;
        Self {
            queue: queue.clone(),
            dir,
            cap,
            spool: None,
            dirty_since: None,
            pause: None,
            failures: 0,
            last_try: false,
        }
    }

    fn run(mut self) {
        loop {
            let task = self.next_task();
            if self.perform(task).is_break() {
                return;
            }
        }
    }

    fn perform(&mut self, task: Task) -> ControlFlow<()> {
        let done = match task {
            Task::Open => self.open(),
            Task::Settle(held, dropped) => self.settle(held, dropped),
            Task::Load => {
                self.load();
                return ControlFlow::Continue(());
            }
            Task::Write(wire, rows) => self.write(&wire, rows),
            Task::Sync => self.sync(),
            Task::End => return ControlFlow::Break(()),
        };
        match done {
            Ok(()) => self.worked(),
            Err(error) => self.failed(&error),
        }
        ControlFlow::Continue(())
    }

    fn next_task(&mut self) -> Task {
        let queue = self.queue.clone();
        let mut state = queue.lock();
        loop {
            if let Some(task) = self.look(&mut state) {
                return task;
            }
            let time = self.idle();
            state = queue.wait(state, time);
        }
    }

    fn look(&mut self, state: &mut State) -> Option<Task> {
        if self.pause.is_some_and(|until| Instant::now() >= until) {
            self.pause = None;
        }
        if state.stopping && !std::mem::replace(&mut self.last_try, true) {
            self.pause = None;
        }
        self.due(state)
    }

    fn due(&self, state: &mut State) -> Option<Task> {
        if self.spool.is_none() {
            return match (self.pause, state.stopping) {
                (None, _) => Some(Task::Open),
                (Some(_), true) => Some(Task::End),
                (Some(_), false) => None,
            };
        }
        if state.settled || (state.dropped_from_memory > 0 && self.pause.is_none()) {
            let held = std::mem::take(&mut state.settled);
            return Some(Task::Settle(
                held,
                std::mem::take(&mut state.dropped_from_memory),
            ));
        }
        if !state.stopping && !state.is_head() && state.disk.batches > 0 {
            return Some(Task::Load);
        }
        if self.pause.is_some() {
            return state.stopping.then_some(Task::End);
        }
        if let Some(entry) = state.unwritten() {
            entry.stage = Stage::Writing;
            return Some(Task::Write(entry.wire.clone(), entry.rows));
        }
        let due = self
            .dirty_since
            .is_some_and(|since| since.elapsed() >= SYNC);
        if self.dirty_since.is_some() && (due || state.stopping) {
            return Some(Task::Sync);
        }
        state.stopping.then_some(Task::End)
    }

    /// How long there is nothing to do unless something changes.
    fn idle(&self) -> Duration {
        let sync = self.dirty_since.map(|since| since + SYNC);
        let until = [sync, self.pause].into_iter().flatten().min();
        let time = until.map_or(Duration::from_secs(60), |until| {
            until.saturating_duration_since(Instant::now())
        });
        // Else it would come back a moment too early, many times.
        time.max(Duration::from_millis(1))
    }

    fn open(&mut self) -> io::Result<()> {
        let opened = Spool::open(&self.dir, self.cap);
        let mut state = self.queue.lock();
        state.opening = false;
        let result = match opened {
            Ok((spool, left)) => {
                state.disk = left.waiting;
                state.stats.batches += left.waiting.batches;
                state.stats.rows += left.waiting.rows;
                state.stats.dropped_rows += left.dropped_rows;
                state.stats.damaged_rows += left.damaged_rows;
                state.stats.disk_bytes = spool.bytes();
                tracing::info!(
                    batches = left.waiting.batches,
                    rows = left.waiting.rows,
                    dropped_rows = left.dropped_rows,
                    damaged_rows = left.damaged_rows,
                    damaged_segments = left.damaged_segments,
                    "spool opened"
                );
                self.spool = Some(spool);
                Ok(())
            }
            Err(error) => Err(error),
        };
        drop(state);
        self.queue.notify();
        result
    }

    fn settle(&mut self, held: bool, dropped: u64) -> io::Result<()> {
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        let noted = match dropped {
            0 => Ok(()),
            rows => spool.dropped_from_memory(rows),
        };
        let done = if held { spool.done() } else { Ok(()) };
        self.queue.lock().stats.disk_bytes = spool.bytes();
        noted.and(done)
    }

    fn load(&mut self) {
        let next = self.spool.as_mut().map_or(Next::Empty, Spool::read);
        let mut state = self.queue.lock();
        match next {
            Next::Batch { wire, rows } => match v1::Batch::decode(&wire[..]) {
                Ok(batch) => state.loaded(Entry::read(&batch, wire, rows)),
                Err(_) => {
                    // Written by another version: nobody can send it.
                    state.lost(Amount { batches: 1, rows });
                    state.settled = true;
                }
            },
            Next::Damaged(amount) => state.lost(amount),
            Next::Empty => {
                let rest = state.disk;
                state.lost(rest);
            }
        }
        drop(state);
        self.queue.notify();
    }

    fn write(&mut self, wire: &[u8], rows: u64) -> io::Result<()> {
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        let mut dropped = Amount::default();
        let appended = spool.append(wire, rows, &mut dropped);
        let mut state = self.queue.lock();
        state.dropped_on_disk(dropped);
        let settled = appended.is_ok() && std::mem::take(&mut state.settled);
        let written = state.written(appended.is_ok());
        drop(state);
        // The batch held before goes first.
        let mut done = if settled { spool.done() } else { Ok(()) };
        let written = appended.map(|place| (place, written));
        if let Ok((place, Written::Kept | Written::Settled)) = written {
            spool.hold(place);
        }
        if let Ok((_, Written::Settled)) = written {
            done = done.and(spool.done());
        }
        if spool.is_dirty() {
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        self.queue.lock().stats.disk_bytes = spool.bytes();
        written.and(done)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dirty_since = None;
        let waiting = self.queue.lock().stats.batches > 0;
        match &mut self.spool {
            Some(spool) if waiting => spool.sync(),
            _ => Ok(()),
        }
    }

    fn worked(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            tracing::info!(failures, "the spool works again");
            self.queue.lock().spool_problem = None;
        }
    }

    /// Said once, then ever more seldom.
    fn failed(&mut self, error: &io::Error) {
        self.failures += 1;
        self.pause = Some(Instant::now() + RETRY);
        let mut state = self.queue.lock();
        state.stats.spool_failures += 1;
        state
            .spool_problem
            .get_or_insert_with(|| format!("{}: {error}", self.dir.display()));
        drop(state);
        if self.failures.is_power_of_two() {
            tracing::warn!(
                failures = self.failures,
                dir = %self.dir.display(),
                %error,
                "the spool can't be used: batches are kept in memory only (agent.buffer)"
            );
        }
    }
}

//! One query process, seen from the collector.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use headroom_core::rollup::stored;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::MARK;
use crate::query::child::MAX_BATCH;
use crate::query::engine::Piece;
use crate::query::wire::{self, FileNow, FromChild, HotHead, Setup, TableNow, ToChild};
use crate::query::{QueryError, Rows, verify};
use crate::schema;
use crate::store::{DataFile, HotBatch, Snapshot, TableRows};

/// Rows in memory that go in one frame, bytes.
const HOT_FRAME: u64 = 8 << 20;
/// What is kept of the end of a process's standard error, bytes.
const TAIL: usize = 2 << 10;
/// Longest wait for a process that closed its socket to be gone.
const ENDING: Duration = Duration::from_secs(1);

/// A process and what it knows already.
pub struct Process {
    child: Child,
    socket: UnixStream,
    setup: Option<Vec<u8>>,
    said: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
    /// Table of each batch in memory that it has.
    hot: HashMap<u64, usize>,
    /// Files of each table that it has the list of.
    files: HashMap<usize, Arc<Vec<Arc<DataFile>>>>,
}

/// Where an answer goes.
pub struct Reply {
    started: Option<oneshot::Sender<Result<SchemaRef, QueryError>>>,
    to: mpsc::Sender<Piece>,
    decoder: StreamDecoder,
    /// Bytes since the last whole batch.
    pending: usize,
}

impl Reply {
    /// An answer that did not begin.
    pub fn new(
        started: oneshot::Sender<Result<SchemaRef, QueryError>>,
        to: mpsc::Sender<Piece>,
    ) -> Self {
        Self {
            started: Some(started),
            to,
            decoder: StreamDecoder::new(),
            pending: 0,
        }
    }

    async fn data(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.pending += bytes.len();
        if self.pending > MAX_BATCH + wire::MAX_FROM_CHILD {
            return Err(io::Error::other("too large a batch"));
        }
        let mut bytes = Buffer::from_vec(bytes);
        loop {
            let rows = self.decoder.decode(&mut bytes).map_err(io::Error::other)?;
            if let Some(schema) = self.decoder.schema()
                && let Some(started) = self.started.take()
            {
                self.pending = 0;
                let _ = started.send(Ok(schema));
            }
            let Some(rows) = rows else { return Ok(()) };
            self.pending = bytes.len();
            // An error here: nobody waits for the answer any more.
            let _ = self.to.send(Piece::Rows(rows)).await;
        }
    }

    /// Says how it ended.
    pub async fn end(&mut self, end: Result<(), QueryError>) {
        match (self.started.take(), end) {
            (Some(started), Err(error)) => drop(started.send(Err(error))),
            (_, end) => drop(self.to.send(Piece::End(end)).await),
        }
    }
}

impl Process {
    /// Starts this program again as a query process; it gets ready by itself.
    ///
    /// # Errors
    /// No socket, or no process.
    pub fn start(args: &[String], setup: &Setup) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // Not the path: after an update another program may stand there.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("headroom-query")
            .args(args)
            .env_clear()
            .env(MARK, "1")
            // Each further arena of glibc reserves 64 MiB of address space.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::spawn(listen(child.stderr.take(), Arc::clone(&said)));
        Ok(Self {
            child,
            socket: UnixStream::from_std(ours)?,
            setup: Some(wire::encode(&ToChild::Setup(setup.clone()))?),
            said,
            listener,
            hot: HashMap::new(),
            files: HashMap::new(),
        })
    }

    /// Whether it has not ended.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id, while it lives.
    #[cfg(test)]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Runs a statement; gives how it ended there.
    ///
    /// # Errors
    /// The process ended, or said what it never should.
    pub async fn ask(
        &mut self,
        rows: &dyn Rows,
        text: &str,
        reply: &mut Reply,
    ) -> io::Result<Result<(), QueryError>> {
        self.set_up().await?;
        self.tell(&ToChild::Ask { sql: text.into() }).await?;
        loop {
            let (kind, content) = wire::receive(&mut self.socket).await?;
            if kind == wire::DATA {
                reply.data(content).await?;
                continue;
            }
            match wire::decode(&content)? {
                FromChild::Need(tables) => self.supply(rows, &tables).await?,
                FromChild::BadFile { table, path } => {
                    if !really_bad(rows, table, &path).await? {
                        return Ok(Err(QueryError::Failed(format!(
                            "file {path} could not be read within the limits of a query; ask again"
                        ))));
                    }
                }
                FromChild::End(end) => return Ok(end),
            }
        }
    }

    /// Tells it its limits, once.
    async fn set_up(&mut self) -> io::Result<()> {
        if let Some(setup) = self.setup.take() {
            wire::send(&mut self.socket, wire::MESSAGE, &setup).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, message: &ToChild) -> io::Result<()> {
        wire::send(&mut self.socket, wire::MESSAGE, &wire::encode(message)?).await
    }

    /// Sends the rows of tables, of what is not there yet.
    async fn supply(&mut self, rows: &dyn Rows, tables: &[usize]) -> io::Result<()> {
        if tables.iter().any(|t| *t >= stored().len()) {
            return Err(io::Error::other("no such table"));
        }
        let snapshot = rows.snapshot();
        let forget = self.forget(&snapshot);
        let mut now = Vec::new();
        for &table in tables {
            let there = &snapshot.tables[table];
            self.send_hot(table, there).await?;
            let known = self.files.insert(table, Arc::clone(&there.files));
            let same = known.is_some_and(|known| Arc::ptr_eq(&known, &there.files));
            now.push(TableNow {
                table,
                hot: there.in_memory().map(|b| b.id).collect(),
                files: (!same).then(|| files(table, &there.files)),
            });
        }
        self.tell(&ToChild::Rows {
            tables: now,
            forget,
        })
        .await
    }

    /// Batches that it has and that are no longer in memory.
    fn forget(&mut self, snapshot: &Snapshot) -> Vec<u64> {
        let tables: HashSet<usize> = self.hot.values().copied().collect();
        let live = tables.iter().flat_map(|t| snapshot.tables[*t].in_memory());
        let live: HashSet<u64> = live.map(|b| b.id).collect();
        let gone = self.hot.extract_if(|id, _| !live.contains(id));
        gone.map(|(id, _)| id).collect()
    }

    async fn send_hot(&mut self, table: usize, rows: &TableRows) -> io::Result<()> {
        let new = rows.in_memory().filter(|b| !self.hot.contains_key(&b.id));
        let mut new: Vec<Arc<HotBatch>> = new.cloned().collect();
        while !new.is_empty() {
            let mut bytes = 0;
            let fits = new.iter().take_while(|b| {
                bytes += b.bytes;
                bytes <= HOT_FRAME
            });
            let fits = fits.count().max(1);
            let rest = new.split_off(fits);
            let batches = std::mem::replace(&mut new, rest);
            self.hot.extend(batches.iter().map(|b| (b.id, table)));
            let frame = if bytes > HOT_FRAME / 8 {
                // Copying this much would hold up other tasks.
                tokio::task::spawn_blocking(move || hot_frame(table, &batches))
                    .await
                    .map_err(io::Error::other)??
            } else {
                hot_frame(table, &batches)?
            };
            wire::send(&mut self.socket, wire::HOT, &frame).await?;
        }
        Ok(())
    }

    /// Why it ended, as an answer to who asked, and in the log.
    pub async fn obituary(&mut self, error: &io::Error) -> QueryError {
        let status = tokio::time::timeout(ENDING, self.child.wait()).await;
        let status = status.ok().and_then(Result::ok);
        let shown = status.map_or_else(|| "still running".into(), |s| s.to_string());
        tracing::warn!(status = shown, %error, "query process ended under a query");
        let said = self.last_words().await;
        cause(status, &said, &shown)
    }

    /// Ends it; gives and logs the end of what it wrote to standard error.
    pub async fn last_words(&mut self) -> String {
        let _ = self.child.start_kill();
        let _ = tokio::time::timeout(ENDING, &mut self.listener).await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said).into_owned();
        if !said.is_empty() {
            tracing::warn!(said, "last words of a query process");
        }
        said
    }
}

fn cause(status: Option<ExitStatus>, said: &str, shown: &str) -> QueryError {
    let killed = status.and_then(|s| s.signal()) == Some(9);
    let memory = [
        "memory allocation of",
        "Cannot allocate memory",
        "os error 12",
    ];
    if killed || memory.iter().any(|sign| said.contains(sign)) {
        QueryError::Memory("its process reached the limit and was ended".into())
    } else if said.contains("overflowed its stack") {
        QueryError::Sql("the query nests too deeply; simplify it".into())
    } else {
        QueryError::Failed(format!(
            "its process ended ({shown}); see the collector's log"
        ))
    }
}

async fn listen(stderr: Option<ChildStderr>, said: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stderr) = stderr else { return };
    let mut piece = [0; TAIL];
    while let Ok(n @ 1..) = stderr.read(&mut piece).await {
        tracing::debug!(said = %String::from_utf8_lossy(&piece[..n]), "query process");
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&piece[..n]);
        let beyond = said.len().saturating_sub(TAIL);
        said.drain(..beyond);
    }
}

/// Sets a file aside that the process could not read, if that is the file's
/// fault: within its limits a process may fail to read a good one.
async fn really_bad(rows: &dyn Rows, table: usize, path: &str) -> io::Result<bool> {
    let live = rows.snapshot();
    let live = live.tables.get(table).map(|t| Arc::clone(&t.files));
    // Not live any more: merged, or set aside for another query.
    let size = live.and_then(|files| files.iter().find(|f| f.path == path).map(|f| f.size));
    let whole = rows.table_dir(table).join(path);
    let good = tokio::task::spawn_blocking(move || {
        size.is_none_or(|size| verify::looks_whole(&whole, size)) && verify::readable(&whole)
    });
    if good.await.map_err(io::Error::other)? {
        return Ok(false);
    }
    rows.set_aside(table, path).await;
    Ok(true)
}

fn files(table: usize, files: &[Arc<DataFile>]) -> Vec<FileNow> {
    let file = |f: &Arc<DataFile>| FileNow {
        path: f.path.clone(),
        size: f.size,
        stats: f.bounds.to_json(stored()[table]),
    };
    files.iter().map(file).collect()
}

fn hot_frame(table: usize, batches: &[Arc<HotBatch>]) -> io::Result<Vec<u8>> {
    let head = wire::encode(&HotHead {
        table,
        ids: batches.iter().map(|b| b.id).collect(),
    })?;
    let mut frame = Vec::new();
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&head);
    let mut writer =
        StreamWriter::try_new(frame, &schema::schema(table)).map_err(io::Error::other)?;
    for batch in batches {
        writer.write(&batch.rows).map_err(io::Error::other)?;
    }
    writer.into_inner().map_err(io::Error::other)
}

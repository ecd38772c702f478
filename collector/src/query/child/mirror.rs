//! The collector's rows as a query process has them.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use arrow::ipc::reader::StreamReader;
use async_trait::async_trait;
use headroom_core::rollup::stored;
use tokio::sync::mpsc;

use crate::query::Rows;
use crate::query::wire::{self, FileNow, FromChild, HotHead, TableNow, ToChild};
use crate::store::{Bounds, DataFile, HotBatch, Keep, Snapshot, TableRows};

/// Largest piece of an answer's stream.
const PIECE: usize = 256 << 10;

/// Tables that a statement named.
#[derive(Debug)]
struct Named {
    snapshot: Arc<Snapshot>,
    tables: Vec<usize>,
}

/// The rows of the tables that the running statement names.
pub struct Mirror {
    socket: Mutex<UnixStream>,
    dirs: Vec<PathBuf>,
    keep: Keep,
    now: ArcSwap<Named>,
    came: tokio::sync::Mutex<mpsc::Receiver<Named>>,
}

/// Takes in what the collector sends.
pub struct Feed {
    hot: HashMap<u64, Arc<HotBatch>>,
    files: Vec<Arc<Vec<Arc<DataFile>>>>,
    asked: mpsc::Sender<String>,
    named: mpsc::Sender<Named>,
}

impl Mirror {
    /// Nothing yet, and what fills it.
    pub fn new(
        socket: UnixStream,
        (dirs, keep): (Vec<PathBuf>, Keep),
        asked: mpsc::Sender<String>,
    ) -> (Self, Feed) {
        let (named, came) = mpsc::channel(1);
        let tables = vec![TableRows::default(); stored().len()];
        let nothing = Named {
            snapshot: Arc::new(Snapshot { tables }),
            tables: Vec::new(),
        };
        let mirror = Self {
            socket: Mutex::new(socket),
            dirs,
            keep,
            now: ArcSwap::from_pointee(nothing),
            came: tokio::sync::Mutex::new(came),
        };
        let feed = Feed {
            hot: HashMap::new(),
            files: vec![Arc::default(); stored().len()],
            asked,
            named,
        };
        (mirror, feed)
    }

    /// Says something to the collector; waits while it does not read.
    ///
    /// # Errors
    /// It is gone.
    pub fn tell(&self, message: &FromChild) -> io::Result<()> {
        let content = wire::encode(message)?;
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *socket, wire::MESSAGE, &content)
    }

    /// Sends a part of an answer's stream and empties the buffer.
    ///
    /// # Errors
    /// The collector is gone.
    pub fn data(&self, stream: &mut Vec<u8>) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in stream.chunks(PIECE) {
            wire::write(&mut *socket, wire::DATA, piece)?;
        }
        stream.clear();
        Ok(())
    }
}

#[async_trait]
impl Rows for Mirror {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.now.load().snapshot)
    }

    async fn of(&self, tables: &[usize]) -> Arc<Snapshot> {
        let mut came = self.came.lock().await;
        // If the collector is gone, this process is about to end.
        if self.tell(&FromChild::Need(tables.to_vec())).is_ok()
            && let Some(named) = came.recv().await
        {
            self.now.store(Arc::new(named));
        }
        self.snapshot()
    }

    fn holds(&self, table: usize) -> bool {
        self.now.load().tables.contains(&table)
    }

    fn table_dir(&self, table: usize) -> PathBuf {
        self.dirs[table].clone()
    }

    fn keep(&self) -> Keep {
        self.keep
    }

    async fn set_aside(&self, table: usize, path: &str) -> bool {
        let now = self.now.load();
        let (snapshot, found) = now.snapshot.without(table, path);
        self.now.store(Arc::new(Named {
            snapshot: Arc::new(snapshot),
            tables: now.tables.clone(),
        }));
        // The collector looks for itself.
        let _ = self.tell(&FromChild::BadFile {
            table,
            path: path.into(),
        });
        found
    }
}

impl Feed {
    /// Takes in frames until the collector is gone.
    ///
    /// # Errors
    /// It is gone, or it says what it never should.
    pub fn run(mut self, from: &mut impl Read) -> io::Result<()> {
        loop {
            match wire::read(from)? {
                (wire::HOT, content) => self.keep(&content)?,
                (_, content) => match wire::decode(&content)? {
                    ToChild::Setup(_) => return Err(io::Error::other("a second setup")),
                    ToChild::Ask { sql } => {
                        self.asked.blocking_send(sql).map_err(io::Error::other)?;
                    }
                    ToChild::Rows { tables, forget } => {
                        forget.iter().for_each(|id| drop(self.hot.remove(id)));
                        let named = self.named_now(tables)?;
                        self.named.blocking_send(named).map_err(io::Error::other)?;
                    }
                },
            }
        }
    }

    fn keep(&mut self, content: &[u8]) -> io::Result<()> {
        let short = || io::Error::other("short frame");
        let (length, rest) = content.split_first_chunk::<4>().ok_or_else(short)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(io::Error::other)?;
        let (head, stream) = rest.split_at_checked(length).ok_or_else(short)?;
        let head: HotHead = wire::decode(head)?;
        let batches = StreamReader::try_new(Cursor::new(stream), None).map_err(io::Error::other)?;
        for (id, rows) in head.ids.into_iter().zip(batches) {
            let rows = rows.map_err(io::Error::other)?;
            self.hot.insert(id, Arc::new(HotBatch::named(id, rows)));
        }
        Ok(())
    }

    fn named_now(&mut self, now: Vec<TableNow>) -> io::Result<Named> {
        let mut tables = vec![TableRows::default(); stored().len()];
        let named = now.iter().map(|t| t.table).collect();
        for now in now {
            let batch = |id| self.hot.get(&id).cloned();
            let hot: Option<Vec<_>> = now.hot.into_iter().map(batch).collect();
            let rows = &mut tables[now.table];
            rows.hot = hot.ok_or_else(|| io::Error::other("a batch that never came"))?;
            if let Some(files) = now.files {
                let files = files.into_iter().map(|f| Arc::new(file(now.table, f)));
                self.files[now.table] = Arc::new(files.collect());
            }
            rows.files = Arc::clone(&self.files[now.table]);
        }
        Ok(Named {
            snapshot: Arc::new(Snapshot { tables }),
            tables: named,
        })
    }
}

fn file(table: usize, file: FileNow) -> DataFile {
    DataFile {
        bounds: Arc::new(Bounds::from_json(stored()[table], Some(&file.stats))),
        path: file.path,
        size: file.size,
    }
}

//! What the collector and a query process say to each other: frames of one
//! byte (kind), four bytes (length, little endian), and the content.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::QueryError;
use crate::store::Keep;

/// Content is a [`ToChild`] or [`FromChild`] in JSON.
pub const MESSAGE: u8 = 1;
/// Content is the length of a [`HotHead`] (4 bytes), that in JSON, and its
/// batches as an Arrow IPC stream.
pub const HOT: u8 = 2;
/// Content is the next part of the answer's Arrow IPC stream.
pub const DATA: u8 = 3;

/// Largest frame that a query process may send: it cuts its answer in pieces.
pub const MAX_FROM_CHILD: usize = 1 << 20;

/// From the collector.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToChild {
    /// First and once.
    Setup(Setup),
    /// A statement, when none runs.
    Ask {
        /// Its text.
        sql: String,
    },
    /// The answer to [`FromChild::Need`], after the batches not sent before.
    Rows {
        /// The tables needed.
        tables: Vec<TableNow>,
        /// Batches in memory that are gone.
        forget: Vec<u64>,
    },
}

/// What a query process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Memory of its queries that DataFusion accounts for, bytes.
    pub memory: u64,
    /// Address space it may have, bytes.
    pub space: u64,
    /// Directory of each table's files.
    pub dirs: Vec<PathBuf>,
    /// How long rows are kept.
    pub keep: Keep,
}

/// The rows of a table at this moment.
#[derive(Debug, Serialize, Deserialize)]
pub struct TableNow {
    /// Position in the catalogue.
    pub table: usize,
    /// Batches in memory.
    pub hot: Vec<u64>,
    /// Live files; `None`: as last time.
    pub files: Option<Vec<FileNow>>,
}

/// A live file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileNow {
    /// Relative to the table's directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Bounds as Delta's `stats`.
    pub stats: String,
}

/// Names the batches of a [`HOT`] frame.
#[derive(Debug, Serialize, Deserialize)]
pub struct HotHead {
    /// Position in the catalogue.
    pub table: usize,
    /// One name a batch.
    pub ids: Vec<u64>,
}

/// From a query process.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromChild {
    /// The statement names these tables: positions in the catalogue.
    Need(Vec<usize>),
    /// A file that can't be read.
    BadFile {
        /// Position in the catalogue.
        table: usize,
        /// Relative to the table's directory.
        path: String,
    },
    /// No further rows.
    End(Result<(), QueryError>),
}

/// A message's content.
///
/// # Errors
/// It can't be written as JSON.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// A message from its content.
///
/// # Errors
/// It is none.
pub fn decode<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(content)?)
}

/// A frame's head and content.
fn head(kind: u8, content: &[u8]) -> io::Result<[u8; 5]> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let [a, b, c, d] = length.to_le_bytes();
    Ok([kind, a, b, c, d])
}

fn length(head: [u8; 5], limit: usize) -> io::Result<usize> {
    let [_, a, b, c, d] = head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(io::Error::other)?;
    if length > limit {
        return Err(io::Error::other(format!("frame of {length} bytes")));
    }
    Ok(length)
}

/// Writes a frame, blocking.
///
/// # Errors
/// The other side is gone.
pub fn write(to: &mut impl Write, kind: u8, content: &[u8]) -> io::Result<()> {
    to.write_all(&head(kind, content)?)?;
    to.write_all(content)
}

/// Reads a frame, blocking.
///
/// # Errors
/// The other side is gone.
pub fn read(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let mut content = vec![0; length(head, usize::MAX)?];
    from.read_exact(&mut content)?;
    Ok((head[0], content))
}

/// Sends a frame.
///
/// # Errors
/// The other side is gone.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), kind: u8, content: &[u8]) -> io::Result<()> {
    to.write_all(&head(kind, content)?).await?;
    to.write_all(content).await
}

/// Receives a frame of a query process.
///
/// # Errors
/// The other side is gone, or the frame is larger than one may be.
pub async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let mut content = vec![0; length(head, MAX_FROM_CHILD)?];
    from.read_exact(&mut content).await?;
    Ok((head[0], content))
}

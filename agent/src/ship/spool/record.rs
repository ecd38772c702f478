//! Bytes of one record: `[len u32][crc32c u32][before u64][rows u32][batch]`,
//! little endian; `len` counts the batch, the checksum covers everything else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use headroom_proto::MAX_MESSAGE_BYTES;

/// Bytes before the batch.
pub const HEADER: usize = 20;
/// First bytes of a segment.
pub const MAGIC: &[u8; 8] = b"HRSPL\0\0\x01";

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Rows written to the spool before this record, since it was made.
    pub before: u64,
    /// Rows of the batch.
    pub rows: u32,
    /// The batch in its wire form.
    pub wire: Vec<u8>,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no whole record: torn, or damaged.
    #[error("no whole record")]
    Damaged,
    /// The file can't be read.
    #[error("reading")]
    Read(#[from] io::Error),
}

/// The record's bytes.
pub fn encode(before: u64, rows: u32, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + wire.len());
    let len = u32::try_from(wire.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&before.to_le_bytes());
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(wire);
    let crc = checksum(len, &out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads the record at `at` of a file whose records end at `end`, and nothing
/// beside it.
///
/// # Errors
/// The bytes are no whole record, or can't be read.
pub fn read(file: &File, at: u64, end: u64) -> Result<Record, Fault> {
    let mut head = [0; HEADER];
    let room = end.saturating_sub(at);
    if room < HEADER as u64 {
        return Err(Fault::Damaged);
    }
    exact(file, &mut head, at)?;
    let [l0, l1, l2, l3, c0, c1, c2, c3, rest @ ..] = head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    let size = len as usize;
    // Before memory is taken for it.
    if size > MAX_MESSAGE_BYTES || u64::from(len) > room - HEADER as u64 {
        return Err(Fault::Damaged);
    }
    let mut wire = vec![0; size];
    exact(file, &mut wire, at + HEADER as u64)?;
    let crc = crc32c::crc32c_append(checksum(len, &rest), &wire);
    if crc != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(Fault::Damaged);
    }
    let [b0, b1, b2, b3, b4, b5, b6, b7, r0, r1, r2, r3] = rest;
    Ok(Record {
        before: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        rows: u32::from_le_bytes([r0, r1, r2, r3]),
        wire,
    })
}

/// A file that is shorter than it was said to be is damaged, not unreadable.
fn exact(file: &File, bytes: &mut [u8], at: u64) -> Result<(), Fault> {
    file.read_exact_at(bytes, at).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged,
        _ => Fault::Read(e),
    })
}

fn checksum(len: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), rest)
}

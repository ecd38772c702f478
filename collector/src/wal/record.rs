//! Bytes of one record: `[len u32][crc32c u32][lsn u64][kind u8][payload]`,
//! little endian; `len` counts the payload, the checksum covers everything
//! after itself and `len`.

use super::Lsn;

/// Bytes before the payload.
pub const HEADER: usize = 17;
/// Longest payload: a batch of the largest message, or marks of very many
/// senders.
pub const MAX_PAYLOAD: usize = 64 << 20;
/// First bytes of a segment.
pub const MAGIC: &[u8; 8] = b"HRWAL\0\0\x01";

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The high-water marks of everything before it.
    Checkpoint = 1,
    /// A batch.
    Batch = 2,
}

/// A record read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position.
    pub lsn: Lsn,
    /// What it holds.
    pub kind: Kind,
    /// The contents.
    pub payload: &'a [u8],
}

/// Bytes that are no whole record: torn, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// The position that the record at the start of `bytes` claims.
pub fn lsn(bytes: &[u8]) -> Option<Lsn> {
    long(bytes, 8)
}

/// Appends a record to `out`.
pub fn encode(out: &mut Vec<u8>, lsn: Lsn, kind: Kind, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let start = out.len();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&lsn.to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(payload);
    let crc = checksum(len, &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the record at the start of `bytes` and the offset behind it; `None`
/// at the end.
///
/// # Errors
/// The bytes are no whole record.
pub fn decode(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, Fault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (Some(len), Some(crc), Some(lsn), Some(kind)) = (
        word(bytes, 0),
        word(bytes, 4),
        long(bytes, 8),
        bytes.get(16),
    ) else {
        return Err(Fault);
    };
    let size = len as usize;
    if size > MAX_PAYLOAD || size > bytes.len() - HEADER {
        return Err(Fault);
    }
    let next = HEADER + size;
    if crc != checksum(len, &bytes[8..next]) {
        return Err(Fault);
    }
    let kind = match kind {
        1 => Kind::Checkpoint,
        2 => Kind::Batch,
        _ => return Err(Fault),
    };
    Ok(Some((
        Record {
            lsn,
            kind,
            payload: &bytes[HEADER..next],
        },
        next,
    )))
}

fn checksum(len: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), rest)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at + 8)?
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
}

//! Reading the log back after any end of the process or the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use headroom_proto::columns;
use prost::Message as _;

use super::marks::{Checkpoint, Seen};
use super::record::{self, Kind, MAGIC, Record};
use super::{Layout, Lsn, Marks};
use crate::Error;

/// What recovery found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Segments left, oldest first.
    pub segments: Vec<Found>,
    /// Marks after the last record.
    pub marks: Marks,
    /// First position not used yet.
    pub next: Lsn,
    /// Batches handed on.
    pub batches: u64,
    /// Batches left out because an earlier record was the same.
    pub repeated: u64,
    /// Tails or records found corrupt and set aside.
    pub quarantined: u64,
}

/// A segment on disk.
#[derive(Debug)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// Position of its last record.
    pub last: Lsn,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Reads all segments and repairs them: corrupt bytes are copied to the
/// quarantine, and a torn tail is cut.
///
/// # Errors
/// The directory or a file can't be read or cut.
pub fn recover(layout: &Layout, on_batch: &mut dyn FnMut(Lsn, Bytes)) -> Result<Recovery, Error> {
    let mut recovery = Recovery {
        next: 1,
        ..Recovery::default()
    };
    for path in segments(&layout.dir)? {
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let keep = replay(
            &path,
            &bytes,
            &mut recovery,
            Some(&layout.quarantine),
            on_batch,
        );
        if keep == 0 {
            // Nothing but what is in the quarantine, or never written.
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            continue;
        }
        if keep < bytes.len() {
            cut(&path, keep as u64)?;
        }
        let last = recovery.next - 1;
        recovery.segments.push(Found {
            path,
            last,
            bytes: keep as u64,
        });
    }
    Ok(recovery)
}

/// Reads all segments and changes nothing; a collector may be at work on them.
///
/// # Errors
/// The directory or a file can't be read.
pub fn read_only(dir: &Path, on_batch: &mut dyn FnMut(Lsn, Bytes)) -> Result<Recovery, Error> {
    let mut recovery = Recovery {
        next: 1,
        ..Recovery::default()
    };
    for path in segments(dir)? {
        match fs::read(&path) {
            Ok(bytes) => {
                replay(&path, &bytes, &mut recovery, None, on_batch);
            }
            // Trimmed between the listing and now: its rows are in Parquet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("read", &path)(e)),
        }
    }
    Ok(recovery)
}

/// Hands on the records of one segment; gives the bytes worth keeping.
fn replay(
    path: &Path,
    bytes: &[u8],
    recovery: &mut Recovery,
    quarantine: Option<&Path>,
    on_batch: &mut dyn FnMut(Lsn, Bytes),
) -> usize {
    let first = path
        .file_stem()
        .and_then(|s| s.to_str())
        .and_then(|s| s.parse::<Lsn>().ok())
        .unwrap_or(1);
    // Numbers are never used twice, even when the segment holds nothing.
    recovery.next = recovery.next.max(first + 1);
    if bytes.is_empty() {
        return 0;
    }
    let mut at = if bytes.starts_with(MAGIC) {
        MAGIC.len()
    } else {
        0
    };
    // Bytes up to here are worth keeping: a record, or a bad one before a
    // good one.
    let mut keep = 0;
    loop {
        match record::decode(&bytes[at..]) {
            Ok(None) => return keep,
            Ok(Some((record, size))) => {
                take(path, record, recovery, on_batch);
                at += size;
                keep = at;
            }
            // After a flipped bit in the middle the next whole record is
            // searched for, so that only the damaged ones are lost.
            Err(_) => {
                let end = resync(bytes, at, recovery.next).unwrap_or(bytes.len());
                set_aside(path, &bytes[at..end], at, recovery, quarantine);
                at = end;
            }
        }
    }
}

/// Offset of the next whole record behind a damaged one.
fn resync(bytes: &[u8], damaged: usize, next: Lsn) -> Option<usize> {
    // From the checkpoint of a segment without records on.
    let plausible = next.saturating_sub(2)..next.saturating_add(1 << 32);
    (damaged + 1..bytes.len().saturating_sub(record::HEADER - 1)).find(|at| {
        let rest = &bytes[*at..];
        // The number is looked at first: a checksum at each offset would take
        // minutes for a damaged 128 MiB segment.
        record::lsn(rest).is_some_and(|lsn| plausible.contains(&lsn))
            && matches!(record::decode(rest), Ok(Some(_)))
    })
}

fn take(
    path: &Path,
    record: Record<'_>,
    recovery: &mut Recovery,
    on_batch: &mut dyn FnMut(Lsn, Bytes),
) {
    match record.kind {
        Kind::Checkpoint => match Checkpoint::decode(record.payload) {
            Ok(checkpoint) => recovery.marks.merge(&checkpoint),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "checkpoint is unreadable")
            }
        },
        Kind::Batch => {
            recovery.next = recovery.next.max(record.lsn + 1);
            if let Err(error) = hand_on(record, recovery, on_batch) {
                recovery.quarantined += 1;
                tracing::error!(%error, lsn = record.lsn, "batch in the log is unreadable, left out");
            }
        }
    }
}

fn hand_on(
    record: Record<'_>,
    recovery: &mut Recovery,
    on_batch: &mut dyn FnMut(Lsn, Bytes),
) -> Result<(), columns::ReadError> {
    let name = columns::name(record.payload)?;
    // A write that failed half-way and its repetition in the next segment may
    // both be on disk.
    if recovery.marks.seen(&name.agent_id, name.epoch, name.seq) == Seen::Duplicate {
        recovery.repeated += 1;
        return Ok(());
    }
    recovery.marks.record(&name.agent_id, name.epoch, name.seq);
    recovery.batches += 1;
    on_batch(record.lsn, Bytes::copy_from_slice(record.payload));
    Ok(())
}

fn set_aside(
    path: &Path,
    bytes: &[u8],
    offset: usize,
    recovery: &mut Recovery,
    quarantine: Option<&Path>,
) {
    let Some(dir) = quarantine else { return };
    recovery.quarantined += 1;
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let copy = dir.join(format!("{name}-at-{offset}"));
    let copied = fs::create_dir_all(dir).and_then(|()| fs::write(&copy, bytes));
    if let Err(error) = copied {
        tracing::warn!(%error, copy = %copy.display(), "could not keep a copy of the corrupt bytes");
    }
    tracing::error!(path = %path.display(), offset, bytes = bytes.len(), "corrupt bytes in the log set aside");
}

fn cut(path: &Path, keep: u64) -> Result<(), Error> {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(Error::io("open", path))?;
    file.set_len(keep)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("cut", path))
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(paths),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.extension().is_some_and(|e| e == "wal") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

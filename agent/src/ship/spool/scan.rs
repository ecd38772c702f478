//! What an earlier process left: the segments, checked record by record.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::cursor::Mark;
use super::record::{self, Fault, HEADER, MAGIC};

/// One file of the spool.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its number, also its name.
    pub number: u64,
    /// Where its whole records end.
    pub end: u64,
    /// Bytes it takes on the disk.
    pub bytes: u64,
    /// Batches not yet read for sending.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// Rows lost to damage behind its whole records, as far as known.
    pub lost_rows: u64,
    /// Whether bytes in it are no record.
    pub damaged: bool,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Segments with something left, oldest first.
    pub segments: VecDeque<Segment>,
    /// Rows written to the spool since it was made.
    pub pushed_rows: u64,
    /// Rows done.
    pub done_rows: u64,
    /// Rows lost with whole files.
    pub lost_rows: u64,
    /// Greatest number of a file.
    pub last_number: u64,
}

/// Name of a segment.
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.seg"))
}

/// Reads all segments, one record in memory at a time; removes those that are
/// done.
///
/// # Errors
/// The directory can't be listed.
pub fn scan(dir: &Path, mark: Option<Mark>) -> io::Result<Found> {
    let mut numbers: Vec<u64> = fs::read_dir(dir)?
        .filter_map(|entry| number(&entry.ok()?.path()))
        .collect();
    numbers.sort_unstable();
    let from = mark.unwrap_or_default();
    let mut found = Found {
        last_number: numbers.last().copied().unwrap_or(0).max(from.segment),
        done_rows: from.done_rows,
        ..Found::default()
    };
    // Rows that the record to come has before it.
    let mut expected = mark.map(|mark| mark.before_rows);
    for number in numbers {
        let start = if number == from.segment {
            from.offset
        } else {
            0
        };
        let Some(read) = (number >= from.segment)
            .then(|| segment(&path(dir, number), number, start))
            .flatten()
        else {
            // Done before the process ended; or it has no bytes.
            let _ = fs::remove_file(path(dir, number));
            continue;
        };
        let (segment, span) = read;
        if let (Some(last), Some(expected), Some((first, _))) =
            (found.segments.back_mut(), expected, span)
            && last.damaged
        {
            last.lost_rows = first.saturating_sub(expected);
        }
        if mark.is_none() && expected.is_none() {
            found.done_rows = span.map_or(0, |(first, _)| first);
        }
        expected = span.map(|(_, end)| end).or(expected);
        found.segments.push_back(segment);
    }
    // What was written last and is not there: torn, or a power cut.
    let ends = expected.unwrap_or(0);
    found.pushed_rows = ends.max(from.pushed_rows);
    let lost = found.pushed_rows - ends;
    match found.segments.back_mut() {
        Some(last) => last.lost_rows = lost,
        None => found.lost_rows = lost,
    }
    Ok(found)
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?
        .to_str()?
        .strip_suffix(".seg")?
        .parse()
        .ok()
}

/// The segment from `start` on, and the rows before and up to the end of these
/// records; `None` when the file is empty.
fn segment(path: &Path, number: u64, start: u64) -> Option<(Segment, Option<(u64, u64)>)> {
    let mut out = Segment {
        number,
        ..Segment::default()
    };
    let mut span = None::<(u64, u64)>;
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let Ok((bytes, file)) = opened else {
        out.damaged = true;
        return Some((out, span));
    };
    if bytes == 0 {
        return None;
    }
    out.bytes = bytes;
    let mut magic = [0; MAGIC.len()];
    if file.read_exact_at(&mut magic, 0).is_err() || &magic != MAGIC {
        out.damaged = true;
        return Some((out, span));
    }
    out.end = start.max(MAGIC.len() as u64);
    while out.end < bytes {
        let record = match record::read(&file, out.end, bytes) {
            Ok(record) => record,
            Err(Fault::Damaged | Fault::Read(_)) => {
                out.damaged = true;
                break;
            }
        };
        out.batches += 1;
        out.rows += u64::from(record.rows);
        let first = span.map_or(record.before, |(first, _)| first);
        span = Some((first, record.before.saturating_add(u64::from(record.rows))));
        out.end += HEADER as u64 + record.wire.len() as u64;
    }
    Some((out, span))
}

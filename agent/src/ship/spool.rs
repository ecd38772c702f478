//! Batches on the disk until they are acked: `<data_dir>/agent/spool/`.
//!
//! Segments that only grow hold the batches in their order, `cursor` says up
//! to where they are done. What is read is one batch at a time, whatever the
//! spool holds.
//!
//! **Invariant:** rows written = done + waiting + dropped, over every restart.
//! Each record says how many rows were written before it and the cursor how
//! many are done, so what was dropped follows from what is there, whatever
//! moment the process was killed at.
//!
//! **Invariant:** a process never appends to a file of an earlier one, whose
//! tail may be torn.

mod cursor;
mod record;
mod room;
mod scan;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cursor::{Cursor, Mark};
use record::{HEADER, MAGIC, Record};
use scan::Segment;

/// Bytes of a segment: what is dropped at once is 1/64 of the default cap.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Segments that fit at least: what is being sent holds one.
const SEGMENTS: u64 = 8;

/// A directory of unacked batches.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    cap: u64,
    segments: VecDeque<Segment>,
    /// File of the last segment, if it is this process's and takes more.
    active: Option<File>,
    /// File read last.
    reading: Option<(u64, File)>,
    cursor: Cursor,
    /// Place of the next record to read, and the rows before it.
    next: Mark,
    /// The record read or held last, until it is done.
    held: Option<Place>,
    last_number: u64,
    /// Whether the directory has entries that are not durable.
    new_entries: bool,
    dirty: bool,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u64,
    start: u64,
    end: u64,
    before: u64,
    rows: u32,
}

/// Batches and rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Batches.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
}

/// What an earlier process left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Waiting, over all segments.
    pub waiting: Amount,
    /// Rows dropped since the spool was made.
    pub dropped_rows: u64,
    /// Rows lost to damage found now, as far as known.
    pub damaged_rows: u64,
    /// Segments with a damaged or torn end.
    pub damaged_segments: u64,
}

/// What came of reading the next batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The batch in its wire form; it is held until it is done.
    Batch {
        /// Its bytes.
        wire: Vec<u8>,
        /// Its rows.
        rows: u64,
    },
    /// The rest of a segment is damaged and passed over.
    Damaged(Amount),
    /// There is none.
    Empty,
}

impl Spool {
    /// Opens or makes the spool and checks what is in it, in memory for one
    /// batch and at the speed of the disk.
    ///
    /// # Errors
    /// The directory can't be made, read or written.
    pub fn open(dir: &Path, cap: u64) -> io::Result<(Self, Left)> {
        fs::create_dir_all(dir)?;
        let (cursor, mark) = Cursor::open(&dir.join("cursor"))?;
        let found = scan::scan(dir, mark)?;
        let mut left = Left::default();
        for segment in &found.segments {
            left.waiting.add(segment.batches, segment.rows);
            left.damaged_rows += segment.lost_rows;
            left.damaged_segments += u64::from(segment.damaged);
        }
        left.damaged_rows += found.lost_rows;
        let mark = mark.unwrap_or_default();
        let known = found.done_rows + left.waiting.rows + left.damaged_rows;
        left.dropped_rows = found.pushed_rows.saturating_sub(known) + mark.memory_dropped_rows;
        let mut spool = Self {
            dir: dir.to_owned(),
            cap,
            segments: found.segments,
            active: None,
            reading: None,
            cursor,
            next: Mark {
                pushed_rows: found.pushed_rows,
                done_rows: found.done_rows + found.lost_rows,
                before_rows: mark.before_rows + found.lost_rows,
                ..mark
            },
            held: None,
            last_number: found.last_number,
            new_entries: true,
            dirty: false,
        };
        spool.settle()?;
        Ok((spool, left))
    }

    /// Appends a batch; when this returns, it survives the process, and after
    /// [`Self::sync`] the machine. Drops the oldest segments when there is no
    /// room, which is said in `dropped` even if it fails then.
    ///
    /// # Errors
    /// As the file system says. The batch is not in the spool.
    pub fn append(&mut self, wire: &[u8], rows: u64, dropped: &mut Amount) -> io::Result<Place> {
        let count = u32::try_from(rows).map_err(io::Error::other)?;
        let bytes = record::encode(self.next.pushed_rows, count, wire);
        let len = bytes.len() as u64;
        self.make_room(len, dropped)?;
        if self.active.is_none() || self.last_end() + len > self.segment_bytes() {
            self.start_segment()?;
        }
        let (Some(file), Some(segment)) = (&self.active, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment"));
        };
        if let Err(error) = file.write_all_at(&bytes, segment.end) {
            // Else what came of it is overwritten by the next one.
            let _ = file.set_len(segment.end);
            return Err(error);
        }
        let start = segment.end;
        segment.end += len;
        segment.bytes = segment.end;
        segment.batches += 1;
        segment.rows += rows;
        self.dirty = true;
        let (number, end) = (segment.number, segment.end);
        let before = self.next.pushed_rows;
        self.next.pushed_rows += rows;
        // So that a torn tail can be counted; the batch is there without it.
        let _ = self.write_cursor();
        Ok(Place {
            segment: number,
            start,
            end,
            before,
            rows: count,
        })
    }

    /// The oldest batch after the one read last. It is held, and never
    /// dropped, until [`Self::done`].
    pub fn read(&mut self) -> Next {
        let Some(segment) = self.segments.iter_mut().find(|s| s.batches > 0) else {
            return Next::Empty;
        };
        let start = match segment.number == self.next.segment {
            true => self.next.offset.max(MAGIC.len() as u64),
            false => MAGIC.len() as u64,
        };
        let (number, end) = (segment.number, segment.end);
        match self.record(number, start, end) {
            Ok(Record { before, rows, wire }) => {
                let place = Place {
                    segment: number,
                    start,
                    end: start + (HEADER + wire.len()) as u64,
                    before,
                    rows,
                };
                self.hold(place);
                Next::Batch {
                    wire,
                    rows: u64::from(rows),
                }
            }
            Err(error) => {
                let amount = self.give_up(number);
                tracing::error!(
                    segment = number,
                    offset = start,
                    error = crate::sampler::chain(&error),
                    rows = amount.rows,
                    "spool damaged, the rest of the segment is lost"
                );
                Next::Damaged(amount)
            }
        }
    }

    /// Holds a batch just appended, which must be the only one not read, as if
    /// it had been read.
    pub fn hold(&mut self, place: Place) {
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.batches = segment.batches.saturating_sub(1);
            segment.rows = segment.rows.saturating_sub(u64::from(place.rows));
        }
        self.next.segment = place.segment;
        self.next.offset = place.end;
        self.held = Some(place);
    }

    /// The held batch is stored or will never be; its file goes when nothing
    /// else is in it.
    ///
    /// # Errors
    /// As the file system says. It is done all the same; after a restart it
    /// may come again.
    pub fn done(&mut self) -> io::Result<()> {
        if let Some(place) = self.held.take() {
            self.next.done_rows += u64::from(place.rows);
            self.next.before_rows = place.before + u64::from(place.rows);
        }
        self.settle()
    }

    /// Notes rows that were dropped before they came here.
    ///
    /// # Errors
    /// As the file system says; the next success says it too.
    pub fn dropped_from_memory(&mut self, rows: u64) -> io::Result<()> {
        self.next.memory_dropped_rows += rows;
        self.write_cursor()
    }

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// As the file system says; the rest goes into a new file then.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.active
            && self.dirty
            && let Err(error) = file.sync_data()
        {
            // A later success would say nothing about these bytes.
            self.active = None;
            self.dirty = false;
            return Err(error);
        }
        self.dirty = false;
        if std::mem::take(&mut self.new_entries) {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Whether there is something that [`Self::sync`] would make durable.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Bytes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.cap / SEGMENTS)
    }

    fn last_end(&self) -> u64 {
        self.segments.back().map_or(0, |s| s.end)
    }

    fn segment_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|s| s.number == number)
    }

    fn record(&mut self, number: u64, at: u64, end: u64) -> Result<Record, record::Fault> {
        let file = match self.reading.take() {
            Some((open, file)) if open == number => file,
            _ => File::open(scan::path(&self.dir, number))?,
        };
        let record = record::read(&file, at, end);
        self.reading = Some((number, file));
        record
    }

    /// Passes over what is left of a segment.
    fn give_up(&mut self, number: u64) -> Amount {
        if self.segments.back().is_some_and(|s| s.number == number) {
            self.seal();
        }
        let Some(segment) = self.segment_mut(number) else {
            return Amount::default();
        };
        let mut lost = Amount::default();
        lost.add(segment.batches, segment.rows);
        segment.lost_rows += segment.rows;
        (segment.batches, segment.rows, segment.damaged) = (0, 0, true);
        lost
    }

    /// Says how far it is done, and removes the files that are.
    fn settle(&mut self) -> io::Result<()> {
        self.write_cursor()?;
        while let Some(first) = self.segments.front() {
            let held = self.held.is_some_and(|h| h.segment == first.number);
            let active = self.segments.len() == 1 && self.active.is_some();
            if held || active || first.batches > 0 {
                break;
            }
            self.next.done_rows += first.lost_rows;
            self.next.before_rows += first.lost_rows;
            let (number, damaged) = (first.number, first.damaged);
            self.segments.pop_front();
            if self.next.segment <= number {
                (self.next.segment, self.next.offset) = (number + 1, 0);
            }
            self.write_cursor()?;
            // Else a power cut could bring back a cursor that knows less.
            self.cursor.sync()?;
            let path = scan::path(&self.dir, number);
            match damaged {
                // The last one is kept for whoever wants to know.
                true => fs::rename(&path, self.dir.join("damaged"))?,
                false => remove(&path)?,
            }
        }
        Ok(())
    }

    fn write_cursor(&mut self) -> io::Result<()> {
        let mut mark = self.next;
        if let Some(held) = self.held {
            (mark.segment, mark.offset) = (held.segment, held.start);
        }
        self.cursor.write(&mark)
    }
}

impl Amount {
    fn add(&mut self, batches: u64, rows: u64) {
        self.batches += batches;
        self.rows += rows;
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

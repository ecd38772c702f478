//! The write-ahead log: what makes an ack mean "durable".
//!
//! A directory of segments `<first lsn>.wal`, each of records (see
//! [`record`]) and beginning with a checkpoint of the high-water marks, so
//! that removing old segments never forgets which batches were seen.
//!
//! **Invariant:** [`Wal::append`] returns `Ok` only after `fdatasync` of the
//! file that holds the records; a file whose write or sync failed once is
//! never written to again.

mod disk;
mod marks;
pub mod record;
mod recover;
mod segment;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use disk::{Disk, LogFile, RealDisk};
pub use marks::{Marks, Seen};
pub use recover::{Recovery, read_only, recover};
use segment::{Segment, encode_all};

use crate::Error;

/// Position of a record in the log; every record has a greater one than those
/// before it, numbers of failed writes are not used again.
pub type Lsn = u64;

/// One batch to append.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Sender.
    pub agent_id: String,
    /// Start of the sender's process, µs since 1970 UTC.
    pub epoch: u64,
    /// Number of the batch within the epoch.
    pub seq: u64,
    /// The batch as protobuf.
    pub payload: bytes::Bytes,
}

/// How the log is laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Directory of the segments.
    pub dir: PathBuf,
    /// Where corrupt bytes are copied to.
    pub quarantine: PathBuf,
    /// Bytes after which a new segment begins.
    pub segment_size: u64,
}

/// A segment that is not written to any more.
#[derive(Debug)]
struct Sealed {
    path: PathBuf,
    last: Lsn,
    bytes: u64,
}

/// The log, open for appending.
pub struct Wal {
    layout: Layout,
    disk: Box<dyn Disk>,
    active: Option<Segment>,
    sealed: Vec<Sealed>,
    marks: Marks,
    next: Lsn,
    /// Size of all segments, for those who must not wait for the disk.
    size: Arc<AtomicU64>,
}

impl Wal {
    /// Recovers the directory, hands every batch that is not a repetition to
    /// `on_batch` in the order of its position, and gets ready to append.
    ///
    /// # Errors
    /// The directory or a segment can't be read or synced; corrupt contents
    /// are no error: they are copied to the quarantine, counted and left out.
    pub fn open(
        layout: Layout,
        disk: Box<dyn Disk>,
        on_batch: &mut dyn FnMut(Lsn, bytes::Bytes),
    ) -> Result<(Self, Recovery), Error> {
        std::fs::create_dir_all(&layout.dir).map_err(Error::io("create", &layout.dir))?;
        let mut recovery = recover(&layout, on_batch)?;
        // A process killed between a write and its sync leaves batches that
        // are read back and so acked when they come again. Without this, the
        // next power cut takes them (found by `headroom-sim`).
        for segment in &recovery.segments {
            disk.sync_file(&segment.path)
                .map_err(Error::io("sync", &segment.path))?;
        }
        disk.sync_dir(&layout.dir)
            .map_err(Error::io("sync", &layout.dir))?;
        let sealed = std::mem::take(&mut recovery.segments)
            .into_iter()
            .map(|s| Sealed {
                path: s.path,
                last: s.last,
                bytes: s.bytes,
            })
            .collect();
        let wal = Self {
            marks: recovery.marks.clone(),
            next: recovery.next,
            layout,
            disk,
            active: None,
            sealed,
            size: Arc::default(),
        };
        wal.note_size();
        Ok((wal, recovery))
    }

    /// Appends a group and makes it durable; gives the position of each entry.
    ///
    /// # Errors
    /// Nothing of the group may be acked. The next call begins a new segment.
    pub fn append(&mut self, group: &[Entry]) -> Result<Vec<Lsn>, Error> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let appended = self.append_or_retry(group);
        self.note_size();
        appended
    }

    fn append_or_retry(&mut self, group: &[Entry]) -> Result<Vec<Lsn>, Error> {
        match self.append_once(group) {
            Ok(lsns) => Ok(lsns),
            // The group is whole in memory: one more try in a fresh file,
            // since after a failed sync the old one can't be trusted.
            Err(first) => {
                tracing::warn!(error = %crate::error::chain(&first), "write to the log failed, trying a new segment");
                self.append_once(group)
            }
        }
    }

    fn append_once(&mut self, group: &[Entry]) -> Result<Vec<Lsn>, Error> {
        let first = self.next;
        let (bytes, lsns) = encode_all(group, first);
        self.next += lsns.len() as Lsn;
        let full = self
            .active
            .as_ref()
            .is_some_and(|s| s.bytes() >= self.layout.segment_size);
        if full {
            self.seal();
        }
        if self.active.is_none() {
            let path = self.layout.dir.join(format!("{first:020}.wal"));
            self.active = Some(Segment::create(
                self.disk.as_ref(),
                path,
                first,
                &self.marks,
            )?);
        }
        let Some(segment) = self.active.as_mut() else {
            return Ok(Vec::new());
        };
        if let Err(error) = segment.append(&bytes) {
            self.seal();
            return Err(error);
        }
        segment.last = first + lsns.len() as Lsn - 1;
        for entry in group {
            self.marks.record(&entry.agent_id, entry.epoch, entry.seq);
        }
        Ok(lsns)
    }

    /// Removes the segments that hold nothing beyond `committed`.
    ///
    /// # Errors
    /// A segment could not be removed; the others are.
    pub fn trim(&mut self, committed: Lsn) -> Result<(), Error> {
        // An active segment that is all committed would be replayed in vain
        // at the next start. Its marks must outlive it, in the next segment.
        if self
            .active
            .as_ref()
            .is_some_and(|s| s.holds_batches() && s.last <= committed)
        {
            let first = self.next;
            self.next += 1;
            let path = self.layout.dir.join(format!("{first:020}.wal"));
            let fresh = Segment::create(self.disk.as_ref(), path, first, &self.marks)?;
            self.seal();
            self.active = Some(fresh);
        }
        // Without a newer segment the marks live only in the sealed ones.
        let keep = usize::from(self.active.is_none());
        let removable = self.sealed.len().saturating_sub(keep);
        let mut failed = None;
        let mut at = 0;
        self.sealed.retain(|s| {
            at += 1;
            if at > removable || s.last > committed {
                return true;
            }
            match std::fs::remove_file(&s.path) {
                Ok(()) => false,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
                Err(e) => {
                    failed = Some(Error::io("remove", &s.path)(e));
                    true
                }
            }
        });
        self.note_size();
        failed.map_or(Ok(()), Err)
    }

    /// Makes sure that positions up to `lsn` are not used, also when the
    /// segments that named them are gone.
    pub fn skip(&mut self, lsn: Lsn) {
        self.next = self.next.max(lsn + 1);
    }

    /// Size of all segments, bytes; kept up to date while the log is written.
    pub fn size(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.size)
    }

    fn note_size(&self) {
        let sealed: u64 = self.sealed.iter().map(|s| s.bytes).sum();
        let active = self.active.as_ref().map_or(0, Segment::bytes);
        self.size.store(sealed + active, Ordering::Relaxed);
    }

    /// The batches that are durable.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    fn seal(&mut self) {
        if let Some(segment) = self.active.take() {
            let (path, last, bytes) = (segment.path.clone(), segment.last, segment.bytes());
            self.sealed.push(Sealed { path, last, bytes });
        }
    }
}

#[cfg(test)]
mod tests;

//! One file of the log while it is written.

use std::path::PathBuf;

use prost::Message as _;

use super::disk::{Disk, LogFile};
use super::record::{self, Kind, MAGIC};
use super::{Entry, Lsn, Marks};
use crate::Error;

/// A segment that can be appended to.
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Position of the last durable record.
    pub last: Lsn,
    file: Box<dyn LogFile>,
    durable: u64,
    head: u64,
}

impl Segment {
    /// Creates the file with its checkpoint and makes both durable.
    ///
    /// # Errors
    /// Any of it failed; the file is removed as far as possible, to give the
    /// space back.
    pub fn create(
        disk: &dyn Disk,
        path: PathBuf,
        first: Lsn,
        marks: &Marks,
    ) -> Result<Self, Error> {
        let mut head = MAGIC.to_vec();
        // Twice: the marks are nowhere else once older segments are trimmed,
        // and one flipped bit must not make known batches new again.
        let checkpoint = marks.checkpoint().encode_to_vec();
        for _ in 0..2 {
            record::encode(
                &mut head,
                first.saturating_sub(1),
                Kind::Checkpoint,
                &checkpoint,
            );
        }
        let made = disk.create(&path).and_then(|mut file| {
            file.append(&head)?;
            file.sync()?;
            path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                let head = head.len() as u64;
                Ok(Self {
                    path,
                    last: first.saturating_sub(1),
                    file,
                    durable: head,
                    head,
                })
            }
            Err(e) => {
                let _ = std::fs::remove_file(&path);
                Err(Error::io("create", &path)(e))
            }
        }
    }

    /// Appends encoded records and makes them durable.
    ///
    /// # Errors
    /// Nothing may be acked, and the segment must not be used again. What was
    /// written is cut off as far as possible.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.append(bytes).and_then(|()| self.file.sync());
        if let Err(e) = written {
            // Left-overs are harmless (their numbers are never used again and
            // recovery drops repetitions), but they take space.
            let _ = self.file.truncate(self.durable);
            return Err(Error::io("write", &self.path)(e));
        }
        self.durable += bytes.len() as u64;
        Ok(())
    }

    /// Durable bytes.
    pub fn bytes(&self) -> u64 {
        self.durable
    }

    /// Whether anything follows the checkpoint.
    pub fn holds_batches(&self) -> bool {
        self.durable > self.head
    }
}

/// Records of a group, the first at position `first`.
pub fn encode_all(group: &[Entry], first: Lsn) -> (Vec<u8>, Vec<Lsn>) {
    let size = group.iter().map(|e| e.payload.len() + record::HEADER).sum();
    let mut bytes = Vec::with_capacity(size);
    let mut lsns = Vec::with_capacity(group.len());
    for (lsn, entry) in (first..).zip(group) {
        record::encode(&mut bytes, lsn, Kind::Batch, &entry.payload);
        lsns.push(lsn);
    }
    (bytes, lsns)
}

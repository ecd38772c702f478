//! How far the spool is done: one small file, written in place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes of a slot: seven words and the checksum, padded.
const SLOT: usize = 64;
/// Slots that are written in turn: a torn one leaves the other.
const SLOTS: u64 = 2;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Segment of the first record that is not done.
    pub segment: u64,
    /// Its place there.
    pub offset: u64,
    /// Rows written to the spool before that record, or fewer.
    pub before_rows: u64,
    /// Rows written to the spool since it was made.
    pub pushed_rows: u64,
    /// Rows of these that were acked, rejected, or lost to damage.
    pub done_rows: u64,
    /// Rows dropped from memory, which never came to the disk.
    pub memory_dropped_rows: u64,
}

/// The file.
#[derive(Debug)]
pub struct Cursor {
    file: File,
    version: u64,
}

impl Cursor {
    /// Opens or makes the file and reads what it says; `None` when it says
    /// nothing that is whole.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(path: &Path) -> io::Result<(Self, Option<Mark>)> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let read = |slot: u64| {
            let mut bytes = [0; SLOT];
            file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
            decode(&bytes)
        };
        let newest = (0..SLOTS)
            .filter_map(read)
            .max_by_key(|(version, _)| *version);
        let (version, mark) = newest.unzip();
        Ok((
            Self {
                file,
                version: version.unwrap_or(0),
            },
            mark,
        ))
    }

    /// Says it: from now on for this kernel, after [`Self::sync`] for ever.
    ///
    /// # Errors
    /// As the file system says; what was said before stays.
    pub fn write(&mut self, mark: &Mark) -> io::Result<()> {
        let version = self.version.wrapping_add(1);
        let at = (version % SLOTS) * SLOT as u64;
        self.file.write_all_at(&encode(version, mark), at)?;
        self.version = version;
        Ok(())
    }

    /// Makes what was said durable.
    ///
    /// # Errors
    /// As the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(version: u64, mark: &Mark) -> [u8; SLOT] {
    let words = [
        version,
        mark.segment,
        mark.offset,
        mark.before_rows,
        mark.pushed_rows,
        mark.done_rows,
        mark.memory_dropped_rows,
    ];
    let mut out = [0; SLOT];
    for (place, word) in out.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out[..SLOT - 4]);
    out[SLOT - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; SLOT]) -> Option<(u64, Mark)> {
    let crc = u32::from_le_bytes(bytes[SLOT - 4..].try_into().ok()?);
    if crc != crc32c::crc32c(&bytes[..SLOT - 4]) {
        return None;
    }
    let word = |i: usize| {
        let bytes = bytes.get(i * 8..i * 8 + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let mark = Mark {
        segment: word(1)?,
        offset: word(2)?,
        before_rows: word(3)?,
        pushed_rows: word(4)?,
        done_rows: word(5)?,
        memory_dropped_rows: word(6)?,
    };
    Some((word(0)?, mark))
}

//! Segments that begin, end, and go when there is no room.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::record::MAGIC;
use super::scan::{self, Segment};
use super::{Amount, Spool, remove};

impl Spool {
    pub(super) fn start_segment(&mut self) -> io::Result<()> {
        self.seal();
        // Counted up also when it fails: the name may be taken.
        self.last_number += 1;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(scan::path(&self.dir, self.last_number))?;
        self.new_entries = true;
        if let Err(error) = file.write_all_at(MAGIC, 0) {
            let _ = remove(&scan::path(&self.dir, self.last_number));
            return Err(error);
        }
        let magic = MAGIC.len() as u64;
        self.segments.push_back(Segment {
            number: self.last_number,
            end: magic,
            bytes: magic,
            ..Segment::default()
        });
        self.active = Some(file);
        Ok(())
    }

    /// No more goes into the last segment.
    pub(super) fn seal(&mut self) {
        if let Some(file) = self.active.take()
            && std::mem::take(&mut self.dirty)
            && let Err(error) = file.sync_data()
        {
            tracing::warn!(%error, "spool segment not synced");
        }
    }

    pub(super) fn make_room(&mut self, len: u64, dropped: &mut Amount) -> io::Result<()> {
        let new_segment = MAGIC.len() as u64;
        let full = || {
            let text = "the batch is larger than half of agent.spool_size";
            io::Error::new(io::ErrorKind::StorageFull, text)
        };
        // Before everything else is dropped for it.
        if len > self.cap / 2 {
            return Err(full());
        }
        while self.bytes() + len + new_segment > self.cap {
            if !self.drop_oldest(dropped)? {
                return Err(full());
            }
        }
        Ok(())
    }

    /// Drops the oldest segment, or what follows the held batch in it: that
    /// one may be stored already, so nobody could say whether it was lost.
    fn drop_oldest(&mut self, dropped: &mut Amount) -> io::Result<bool> {
        let held = self.held;
        let held_in = |s: &Segment| held.filter(|h| h.segment == s.number).map(|h| h.end);
        let droppable = |s: &Segment| held_in(s).is_none_or(|end| s.bytes > end);
        let Some(at) = self.segments.iter().position(droppable) else {
            return Ok(false);
        };
        if at + 1 == self.segments.len() {
            self.seal();
        }
        let number = self.segments[at].number;
        let path = scan::path(&self.dir, number);
        let keep = held_in(&self.segments[at]);
        match keep {
            Some(end) => OpenOptions::new().write(true).open(path)?.set_len(end)?,
            None => remove(&path)?,
        }
        let segment = &mut self.segments[at];
        dropped.add(segment.batches, segment.rows);
        let lost = std::mem::take(&mut segment.lost_rows);
        self.next.done_rows += lost;
        if held.is_none() {
            self.next.before_rows += segment.rows + lost;
        }
        (segment.batches, segment.rows, segment.damaged) = (0, 0, false);
        match keep {
            Some(end) => (segment.end, segment.bytes) = (end, end),
            None => drop(self.segments.remove(at)),
        }
        Ok(true)
    }
}

//! The disk under the collector's log: what was not synced is lost, or torn,
//! when the power goes; writes and syncs fail; the process dies between two
//! operations.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headroom_collector::embedded::{Disk, LogFile};

use crate::chance;
use crate::trace::Trace;

/// Bytes before the marks of a segment.
const MAGIC: usize = 8;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// One write in so many fails half-way; 0: none.
    pub writes: u32,
    /// One sync in so many fails; 0: none.
    pub syncs: u32,
    /// Operations until the process dies in one; 0: it does not.
    pub die_in: u32,
    /// Syncs do nothing: the control without fsync.
    pub lying: bool,
    /// Marks are not written: the control without marks.
    pub forgetful: bool,
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>, Trace);

struct State {
    faults: Faults,
    /// The process died in an operation: nothing happens until it is restarted.
    frozen: bool,
    files: BTreeMap<PathBuf, Image>,
}

/// What is on the platter.
#[derive(Default)]
struct Image {
    durable: Vec<u8>,
    /// Whether the directory knows of it.
    named: bool,
}

impl SimDisk {
    /// A disk without faults.
    pub fn new(trace: &Trace) -> Self {
        let state = State {
            faults: Faults::default(),
            frozen: false,
            files: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new(state)), trace.clone())
    }

    /// Changes what is wrong.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// Whether the process died in an operation.
    pub fn frozen(&self) -> bool {
        self.lock().frozen
    }

    /// The next process may write.
    pub fn thaw(&self) {
        let mut state = self.lock();
        state.frozen = false;
        state.faults.die_in = 0;
    }

    /// Files hold what was synced and, torn anywhere, some of the rest; one
    /// that was removed may be back.
    ///
    /// # Errors
    /// As the real file system says.
    pub fn lose_power(&self) -> io::Result<()> {
        let mut state = self.lock();
        for (path, image) in std::mem::take(&mut state.files) {
            let now = match fs::read(&path) {
                Ok(now) => now,
                Err(_) if chance::one_in(2) => continue,
                Err(_) => image.durable.clone(),
            };
            if !image.named && chance::one_in(2) {
                let _ = fs::remove_file(&path);
                continue;
            }
            fs::write(&path, survivors(&image.durable, now))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a file outlives a power cut.
fn survivors(durable: &[u8], mut now: Vec<u8>) -> Vec<u8> {
    if durable.starts_with(&now) {
        // Cut by a recovery, which syncs that.
        return now;
    }
    if !now.starts_with(durable) {
        return durable.to_vec();
    }
    let rest = now.len() - durable.len();
    let kept = match chance::within(0..=3) {
        0 => 0,
        1 => rest,
        _ => chance::within(0..=u32::try_from(rest).unwrap_or(u32::MAX)) as usize,
    };
    now.truncate(durable.len() + kept);
    now
}

impl State {
    /// Whether the operation happens, and whether the process dies in it.
    fn begin(&mut self) -> io::Result<bool> {
        if self.frozen {
            return Err(dead());
        }
        if self.faults.die_in == 0 {
            return Ok(false);
        }
        self.faults.die_in -= 1;
        self.frozen = self.faults.die_in == 0;
        Ok(self.frozen)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let mut state = self.lock();
        if state.begin()? {
            return Err(dead());
        }
        fs::write(path, [])?;
        state.files.insert(path.to_path_buf(), Image::default());
        self.1
            .note(format_args!("disk"), format_args!("create {}", name(path)));
        Ok(Box::new(SimFile {
            path: path.to_path_buf(),
            file: OpenOptions::new().append(true).open(path)?,
            written: Vec::new(),
            dirty_lost: false,
            disk: self.clone(),
        }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let dies = state.begin()?;
        let fails = chance::one_in(state.faults.syncs);
        if !(dies || fails || state.faults.lying) {
            let durable = fs::read(path)?;
            let here = state.files.entry(path.to_path_buf());
            here.or_insert_with(|| Image {
                durable: Vec::new(),
                named: true,
            })
            .durable = durable;
        }
        outcome(dies, fails.then(|| io::Error::other("input/output error")))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let dies = state.begin()?;
        if !state.faults.lying {
            state.files.retain(|path, image| {
                let here = path.parent() == Some(dir);
                image.named |= here;
                !here || path.exists()
            });
        }
        outcome(dies, None)
    }
}

struct SimFile {
    path: PathBuf,
    file: File,
    written: Vec<u8>,
    /// A sync failed: as on Linux, later ones succeed without writing.
    dirty_lost: bool,
    disk: SimDisk,
}

impl LogFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let dies = state.begin()?;
        let fails = chance::one_in(state.faults.writes);
        let bytes = match state.faults.forgetful && self.written.is_empty() {
            true => &bytes[..MAGIC.min(bytes.len())],
            false => bytes,
        };
        let some = match dies || fails {
            true => &bytes[..bytes.len() * chance::within(0..=4) as usize / 4],
            false => bytes,
        };
        self.written.extend_from_slice(some);
        self.file.write_all(some)?;
        self.disk.1.note(
            format_args!("disk"),
            format_args!(
                "append {} of {} bytes to {}",
                some.len(),
                bytes.len(),
                name(&self.path)
            ),
        );
        outcome(
            dies,
            fails.then(|| io::Error::from(io::ErrorKind::StorageFull)),
        )
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let dies = state.begin()?;
        let fails = chance::one_in(state.faults.syncs);
        // The process may die before or after the bytes are down.
        let down = !(fails || state.faults.lying || self.dirty_lost || dies && chance::one_in(2));
        if down {
            let image = state.files.entry(self.path.clone()).or_default();
            image.durable.clone_from(&self.written);
        }
        self.dirty_lost |= fails;
        self.disk.1.note(
            format_args!("disk"),
            format_args!(
                "sync {} {}",
                name(&self.path),
                if down { "done" } else { "not done" }
            ),
        );
        outcome(dies, fails.then(|| io::Error::other("input/output error")))
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        if self.disk.lock().begin()? {
            return Err(dead());
        }
        self.written
            .truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.file.set_len(bytes)
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn outcome(dies: bool, fails: Option<io::Error>) -> io::Result<()> {
    match dies.then(dead).or(fails) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

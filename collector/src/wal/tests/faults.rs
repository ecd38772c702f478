//! A disk that fails when told to and forgets what was not synced.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::wal::{Disk, LogFile};

/// Handle of the test on the disk.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    writes: u8,
    syncs: u8,
    lying: bool,
    /// By file: what is on the platter.
    durable: HashMap<PathBuf, Vec<u8>>,
}

impl Faults {
    pub fn fail_writes(&self, n: u8) {
        self.0.lock().unwrap().writes = n;
    }

    pub fn fail_syncs(&self, n: u8) {
        self.0.lock().unwrap().syncs = n;
    }

    pub fn lie_about_syncs(&self) {
        self.0.lock().unwrap().lying = true;
    }

    pub fn sync_again(&self) {
        self.0.lock().unwrap().lying = false;
    }

    /// Files hold what was synced, faults end.
    pub fn lose_power(&self) {
        let mut state = self.0.lock().unwrap();
        (state.writes, state.syncs) = (0, 0);
        for (path, bytes) in state.durable.drain() {
            if path.exists() {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

pub struct FaultyDisk(Faults);

impl FaultyDisk {
    pub fn new(faults: &Faults) -> Self {
        Self(faults.clone())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        std::fs::write(path, [])?;
        self.0
            .0
            .lock()
            .unwrap()
            .durable
            .insert(path.to_path_buf(), Vec::new());
        Ok(Box::new(FaultyFile {
            path: path.to_path_buf(),
            bytes: Vec::new(),
            dirty_lost: false,
            faults: self.0.clone(),
        }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.0.lock().unwrap();
        if !state.lying {
            let bytes = std::fs::read(path)?;
            state.durable.insert(path.to_path_buf(), bytes);
        }
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct FaultyFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// A sync failed: like Linux, later ones succeed without writing.
    dirty_lost: bool,
    faults: Faults,
}

impl LogFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.faults.0.lock().unwrap();
        if state.writes > 0 {
            state.writes -= 1;
            // Half of it arrives.
            self.bytes.extend_from_slice(&bytes[..bytes.len() / 2]);
            std::fs::write(&self.path, &self.bytes)?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.bytes.extend_from_slice(bytes);
        std::fs::write(&self.path, &self.bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.faults.0.lock().unwrap();
        if state.syncs > 0 {
            state.syncs -= 1;
            self.dirty_lost = true;
            return Err(io::Error::other("input/output error"));
        }
        if !state.lying && !self.dirty_lost {
            state.durable.insert(self.path.clone(), self.bytes.clone());
        }
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes.truncate(bytes as usize);
        std::fs::write(&self.path, &self.bytes)
    }
}

//! Where fetched kernels are kept between runs.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::LabError;

/// Directory of the kernels, held alone: two processes fetch one after the
/// other, and the second finds what the first fetched.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    _lock: File,
}

impl Cache {
    /// `kernels` below `$HEADROOM_CACHE`, as `./test` sets it, or below the
    /// user's cache directory.
    pub(crate) fn open() -> Result<Self, LabError> {
        let dir = home().join("kernels");
        fs::create_dir_all(&dir).map_err(|e| LabError::io("make the cache", &dir, e))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(|e| LabError::io("make the lock", &path, e))?;
        lock.lock()
            .map_err(|e| LabError::io("lock the cache", &path, e))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn home() -> PathBuf {
    let of = |name| {
        env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    of("HEADROOM_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|dir| dir.join("headroom")))
        .or_else(|| of("HOME").map(|dir| dir.join(".cache/headroom")))
        .unwrap_or_else(|| env::temp_dir().join("headroom-cache"))
}

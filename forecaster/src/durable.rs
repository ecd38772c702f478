//! Files that are whole or absent after a crash.

use std::fs::{File, OpenOptions};
use std::io::{Error, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file of mode 0600: temporary name, fsync, rename, fsync of the
/// directory. When this returns the content survives a power loss.
///
/// # Errors
/// Any step that failed; the old content then still stands.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path
        .file_name()
        .ok_or_else(|| Error::other("path has no file name"))?
        .to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Removes a file; one that is gone already is no error.
///
/// # Errors
/// The removal failed.
pub fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => sync_parent(path),
    }
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

//! `<data_dir>/endpoint.metrics`: where others on this host find the page.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The file, as long as this lives.
#[derive(Debug)]
pub struct Endpoint {
    path: PathBuf,
}

/// Writes the address, atomically: a reader sees all of it or none.
///
/// # Errors
/// The file can't be written.
pub fn announce(data_dir: &Path, address: SocketAddr) -> io::Result<Endpoint> {
    let path = data_dir.join("endpoint.metrics");
    let temporary = data_dir.join(".endpoint.metrics.tmp");
    fs::write(&temporary, format!("{address}\n"))?;
    fs::rename(&temporary, &path)?;
    Ok(Endpoint { path })
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

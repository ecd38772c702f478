//! `<data_dir>/endpoint`, `endpoint.pg` and `endpoint.http`: where others on
//! this host find the collector's doors.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::Error;

/// The file, as long as this lives.
#[derive(Debug)]
pub struct Endpoint {
    path: PathBuf,
}

/// Writes the address of one door to a file of that name, atomically: a reader
/// sees all of it or none.
///
/// # Errors
/// The file can't be written.
pub fn announce(data_dir: &Path, name: &str, address: SocketAddr) -> Result<Endpoint, Error> {
    let path = data_dir.join(name);
    let temporary = data_dir.join(format!(".{name}.tmp"));
    let written =
        fs::write(&temporary, format!("{address}\n")).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(Error::io("write", &path))?;
    Ok(Endpoint { path })
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

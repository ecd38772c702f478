//! Who the batches come from, over restarts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ulid::Ulid;

use crate::clock;

/// Id of the agent and epoch of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Stable over restarts.
    pub agent_id: String,
    /// Start of this process, µs since 1970 UTC; greater than every earlier
    /// one of this agent, even if the clock was set back.
    pub epoch: u64,
}

/// The identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file operation failed.
    #[error("{operation} {path} (set agent.data_dir to a directory that the agent may write)")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not hold what the agent wrote; remove it to start as a new agent")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// Reads `<data_dir>/agent/{id,epoch}`, or makes them. An agent that has
    /// an id goes on when the epoch cannot be written, as on a full disk: the
    /// clock alone makes it greater then.
    ///
    /// # Errors
    /// The directory cannot be made or read, there is no id and none can be
    /// written, or a file is corrupt.
    pub fn load(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = data_dir.join("agent");
        fs::create_dir_all(&dir).map_err(file_error("creating", &dir))?;
        let id_path = dir.join("id");
        let agent_id = match read(&id_path)? {
            Some(text) => valid_id(&text).ok_or(IdentityError::Corrupt { path: id_path })?,
            None => {
                let id = Ulid::new().to_string();
                write(&dir, "id", &id)?;
                id
            }
        };
        let epoch_path = dir.join("epoch");
        let last = match read(&epoch_path)? {
            Some(text) => text
                .parse::<u64>()
                .map_err(|_| IdentityError::Corrupt { path: epoch_path })?,
            None => 0,
        };
        let now = u64::try_from(clock::micros(clock::wall())).unwrap_or(0);
        let epoch = now.max(last.saturating_add(1));
        if let Err(error) = write(&dir, "epoch", &epoch.to_string()) {
            let error = crate::sampler::chain(&error);
            tracing::warn!(error, "the epoch is not kept; do not set the clock back");
        }
        Ok(Self { agent_id, epoch })
    }
}

fn valid_id(text: &str) -> Option<String> {
    Ulid::from_string(text).ok().map(|id| id.to_string())
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error("reading", path)(source)),
    }
}

/// Whole or not at all, also after a power cut.
fn write(dir: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}.new")));
    let replace = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    replace().map_err(file_error("writing", &path))
}

fn file_error(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File {
        operation,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_id_and_a_later_epoch_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load(dir.path()).unwrap();
        let second = Identity::load(dir.path()).unwrap();
        assert_eq!(first.agent_id, second.agent_id);
        assert!(second.epoch > first.epoch);
        // A clock that was a year ahead at the last start.
        let ahead = second.epoch + 31_536_000_000_000;
        fs::write(dir.path().join("agent/epoch"), ahead.to_string()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().epoch, ahead + 1);
    }

    #[test]
    fn an_epoch_that_cannot_be_written_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load(dir.path()).unwrap();
        // In the way of the file that replaces it.
        fs::create_dir(dir.path().join("agent/epoch.new")).unwrap();
        let second = Identity::load(dir.path()).unwrap();
        assert_eq!(first.agent_id, second.agent_id);
        assert!(second.epoch > first.epoch);
    }

    #[test]
    fn a_corrupt_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load(dir.path()).unwrap();
        fs::write(dir.path().join("agent/id"), "not an id").unwrap();
        let text = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(text.contains("agent/id"), "{text}");
    }

    #[test]
    fn an_unwritable_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent"), "a file in the way").unwrap();
        let text = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(text.contains("agent.data_dir"), "{text}");
    }
}

//! What the gate remembers: open recommendations and cooldowns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::durable;

/// The gate's memory failed.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("writing {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// One recommendation that was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Open {
    pub id: String,
    pub expires_at: Micros,
    pub cool_until: Micros,
    pub calm: u32,
    pub closed: bool,
}

pub(super) struct State {
    path: PathBuf,
    entries: BTreeMap<String, Open>,
}

impl State {
    /// Reads the file; one that is no JSON is set aside, at the price of
    /// cooldowns that start anew.
    pub fn open(dir: &Path) -> Result<Self, GateError> {
        let path = dir.join("gate.json");
        let entries = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "gate memory is corrupt, starting without");
                BTreeMap::new()
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(GateError::Read { path, source }),
        };
        Ok(Self { path, entries })
    }

    pub fn save(&self) -> Result<(), GateError> {
        let bytes = serde_json::to_vec(&self.entries).unwrap_or_default();
        durable::write(&self.path, &bytes).map_err(|source| GateError::Write {
            path: self.path.clone(),
            source,
        })
    }

    pub fn insert(&mut self, key: String, open: Open) {
        self.entries.insert(key, open);
    }

    pub fn forget(&mut self, now: Micros) {
        self.entries
            .retain(|_, o| o.cool_until > now || (!o.closed && o.expires_at > now));
    }

    pub fn cooling(&self, key: &str, now: Micros) -> bool {
        self.entries
            .get(key)
            .is_some_and(|o| o.cool_until > now || (!o.closed && o.expires_at > now))
    }

    /// Recommendations that are neither expired nor withdrawn.
    pub fn opened(&mut self, now: Micros) -> impl Iterator<Item = (&String, &mut Open)> {
        self.entries
            .iter_mut()
            .filter(move |(_, o)| !o.closed && o.expires_at > now)
    }
}

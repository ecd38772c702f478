//! A labels file that may change at any time.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::rules::{LabelsError, Rules};

/// Beyond that a file is refused: 20 000 entries of 200 bytes.
pub const MAX_BYTES: u64 = 4 << 20;

/// Tells one state of the file from the next, also when it is replaced by
/// another of the same age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// The rules of a file, as of its last good state.
#[derive(Debug)]
pub struct LabelsFile {
    path: PathBuf,
    /// State that was looked at last; the inner `None` is a missing file.
    mark: Option<Option<Mark>>,
    rules: Rules,
}

/// What a look at the file brought.
#[derive(Debug)]
pub enum Poll {
    /// As before.
    Same,
    /// Other rules hold now.
    Loaded,
    /// The file cannot be used, the last good rules stay; told once for each
    /// state of the file.
    Broken(LabelsError),
}

impl LabelsFile {
    /// A file to be polled; without rules until then.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            mark: None,
            rules: Rules::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rules that hold.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Reads the file if it has changed: one `stat` if not.
    pub fn poll(&mut self) -> Poll {
        let now = mark(&self.path);
        if self.mark == Some(now) {
            return Poll::Same;
        }
        self.mark = Some(now);
        match read(&self.path).and_then(|text| Rules::parse(&text)) {
            Ok(rules) => {
                self.rules = rules;
                Poll::Loaded
            }
            Err(error) => Poll::Broken(error),
        }
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Mark {
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn read(path: &Path) -> Result<String, LabelsError> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(LabelsError::Read)?;
    let mut some = file.take(MAX_BYTES + 1);
    some.read_to_string(&mut text).map_err(LabelsError::Read)?;
    match text.len() as u64 > MAX_BYTES {
        true => Err(LabelsError::TooLarge),
        false => Ok(text),
    }
}

//! Clearing away what an interrupted flush left, and keeping bad files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{DataFile, TableLog};
use crate::Error;

/// Moves a torn newest commit of a table's log to the quarantine and removes
/// its left-overs; tells whether there was one. The rows of a torn commit are
/// still in the write-ahead log: it is trimmed only after the commit is synced.
///
/// # Errors
/// The directory can't be read or changed.
pub fn repair_log(table_dir: &Path, quarantine: &Path) -> Result<bool, Error> {
    let dir = table_dir.join("_delta_log");
    let mut newest: Option<PathBuf> = None;
    for path in list(&dir)? {
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.contains(".json#") || name.contains(".parquet#") || name.ends_with(".json.tmp") {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        } else if is_commit(&name) && newest.as_ref().is_none_or(|n| path > *n) {
            newest = Some(path);
        }
    }
    drop_torn_checkpoints(&dir)?;
    let Some(path) = newest else { return Ok(false) };
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    if is_whole(&text) {
        // The process may have died between the commit and its sync.
        sync_commit(&path)?;
        return Ok(false);
    }
    let table = table_dir
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    tracing::error!(path = %path.display(), "torn commit set aside; its rows come back from the log");
    keep_copy(&path, &table, quarantine);
    super::parquet::sync_dir(&dir)?;
    Ok(true)
}

/// Removes checkpoints that a loss of power cut short, and the pointer to
/// them. What they told still stands in the commits: those are deleted only
/// when a checkpoint is synced.
fn drop_torn_checkpoints(log: &Path) -> Result<(), Error> {
    for path in list(log)? {
        let checkpoint = path.to_string_lossy().ends_with(".checkpoint.parquet");
        if checkpoint && !ends_as_parquet(&path).map_err(Error::io("read", &path))? {
            tracing::warn!(path = %path.display(), "torn checkpoint removed; its commits are there");
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            let pointer = log.join("_last_checkpoint");
            if pointer.exists() {
                fs::remove_file(&pointer).map_err(Error::io("remove", &pointer))?;
            }
        }
    }
    Ok(())
}

fn ends_as_parquet(path: &Path) -> std::io::Result<bool> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() < 12 {
        return Ok(false);
    }
    let mut tail = [0; 4];
    file.seek(SeekFrom::End(-4))?;
    file.read_exact(&mut tail)?;
    Ok(tail == *b"PAR1")
}

/// Removes data files that are no part of the table: those that no commit
/// names, and those that one took out of it at least `keep` ago. The log is
/// asked for those only if there is a file that is not live.
///
/// # Errors
/// The table's log or a directory can't be read.
pub async fn remove_dead(
    log: &dyn TableLog,
    table_dir: &Path,
    live: &[Arc<DataFile>],
    keep: Duration,
) -> Result<(), Error> {
    let dead = dead(table_dir, live)?;
    if dead.is_empty() {
        return Ok(());
    }
    let removed: HashMap<String, i64> = log.removed().await?.into_iter().collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let before = now.unwrap_or_default().saturating_sub(keep).as_millis();
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    for relative in dead {
        // Times are ms since 1970 UTC.
        if removed.get(&relative).is_some_and(|at| *at > before) {
            continue;
        }
        let path = table_dir.join(&relative);
        tracing::info!(path = %path.display(), "removing a file that is no part of the table");
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Our files below a table's directory that are not live, relative to it.
///
/// # Errors
/// A directory can't be read.
pub fn dead(table_dir: &Path, live: &[Arc<DataFile>]) -> Result<Vec<String>, Error> {
    let live: HashSet<&str> = live.iter().map(|f| f.path.as_str()).collect();
    let mut dead = Vec::new();
    let folders = list(table_dir)?.into_iter();
    for folder in folders.filter(|p| p.is_dir() && !p.ends_with("_delta_log")) {
        for path in list(&folder)? {
            let relative = path
                .strip_prefix(table_dir)
                .ok()
                .and_then(Path::to_str)
                .unwrap_or_default();
            let ours = path.file_name().is_some_and(|n| {
                let n = n.to_string_lossy();
                n.starts_with("part-") || (n.starts_with(".part-") && n.ends_with(".tmp"))
            });
            if ours && !live.contains(relative) {
                dead.push(relative.to_owned());
            }
        }
    }
    Ok(dead)
}

/// Makes one file of a table's log durable.
///
/// # Errors
/// As the file system says.
pub fn sync_commit(commit: &Path) -> Result<(), Error> {
    if let Err(error) = fs::File::open(commit).and_then(|f| f.sync_all()) {
        // A second sync of the same pages would succeed without writing them.
        tracing::warn!(%error, path = %commit.display(), "sync of a commit failed, writing it anew");
        let copy = commit.with_extension("json.tmp");
        fs::read(commit)
            .and_then(|bytes| fs::write(&copy, bytes))
            .and_then(|()| fs::File::open(&copy)?.sync_all())
            .and_then(|()| fs::rename(&copy, commit))
            .map_err(Error::io("rewrite", commit))?;
    }
    commit.parent().map_or(Ok(()), super::parquet::sync_dir)
}

/// Moves a bad file out of the way; a file that is gone needs no moving.
pub fn keep_copy(path: &Path, table: &str, quarantine: &Path) {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let target = quarantine.join(format!("{table}-{name}"));
    let moved = fs::create_dir_all(quarantine).and_then(|()| fs::rename(path, &target));
    match moved {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "could not move a bad file to the quarantine")
        }
        Ok(()) => {}
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    entries
        .map(|e| e.map(|e| e.path()).map_err(Error::io("list", dir)))
        .collect()
}

fn is_commit(name: &str) -> bool {
    name.strip_suffix(".json")
        .is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit()))
}

fn is_whole(text: &[u8]) -> bool {
    let mut lines = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .peekable();
    lines.peek().is_some() && lines.all(|l| serde_json::from_slice::<serde_json::Value>(l).is_ok())
}

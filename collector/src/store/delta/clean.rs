//! Keeping a table's log short: checkpoints, and the end of what they hold.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake_core::DeltaTable;
use deltalake_core::checkpoints::{cleanup_expired_logs_for, create_checkpoint};
use headroom_core::metric::Table;

use crate::Error;
use crate::store::tidy;

/// Commits after which a checkpoint is written: a start reads the commits
/// behind the last one, about 50 µs each.
const COMMITS: u64 = 32;

/// Writes a checkpoint when one is due, and deletes the entries of the log
/// older than `keep` that the newest synced one makes superfluous.
pub async fn shorten(
    delta: &mut DeltaTable,
    table: &'static Table,
    dir: &Path,
    keep: Duration,
) -> Result<(), Error> {
    let log = dir.join("_delta_log");
    let version = delta.version().unwrap_or(0);
    let last = last_checkpoint(&log)?.unwrap_or(0);
    if version < last + COMMITS {
        return Ok(());
    }
    let failed = || Error::table("write a checkpoint of", table.name);
    create_checkpoint(delta, None).await.map_err(failed())?;
    // Entries may go only once the checkpoint outlives a loss of power.
    tidy::sync_commit(&log.join(format!("{version:020}.checkpoint.parquet")))?;
    tidy::sync_commit(&log.join("_last_checkpoint"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let before = now.unwrap_or_default().saturating_sub(keep).as_millis();
    let before = i64::try_from(before).unwrap_or(0);
    let store = delta.log_store();
    let gone = cleanup_expired_logs_for(version, store.as_ref(), before, None)
        .await
        .map_err(Error::table("shorten the log of", table.name))?;
    tracing::debug!(table = table.name, version, gone, "log shortened");
    delta.update_state().await.map_err(failed())
}

fn last_checkpoint(log: &Path) -> Result<Option<u64>, Error> {
    let entries = std::fs::read_dir(log).map_err(Error::io("list", log))?;
    let version = |name: &str| {
        let (version, kind) = name.split_once('.')?;
        kind.starts_with("checkpoint")
            .then(|| version.parse().ok())?
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names
        .filter_map(|name| version(&name.to_string_lossy()))
        .max())
}

//! Brings small files together, rolls up, lets go of what is too old, and
//! deletes the files of which nothing is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use headroom_core::rollup::stored;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Error;
use crate::error::chain;
use crate::query;
use crate::rollup::Roller;
use crate::store::{DataFile, FileWriter, Merge, Store, due, usage};

/// How often it is looked whether a merge is due.
const LOOK: Duration = Duration::from_secs(60);
/// Memory of one merge beside the row group that is being written: twelve
/// inputs of 8192 rows took less than 100 MiB with histograms.
const MEMORY: usize = 256 << 20;
/// How long a replaced file stays for readers that still have its name, those
/// of other programs too.
pub const KEEP_REPLACED: Duration = Duration::from_secs(2 * 3600);
/// How long entries of a table's log stay that a checkpoint replaces.
const KEEP_LOG: Duration = Duration::from_secs(24 * 3600);
/// How often it is told what the tables take.
const TELL: Duration = Duration::from_secs(3600);

/// Starts the task that merges until `stopping`.
pub fn start(store: &Arc<Store>, mut stopping: watch::Receiver<bool>) -> JoinHandle<()> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let mut roller = Roller::default();
        let mut told: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|s| *s) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let stop = || *stopping.borrow();
            merge_all(&store, now_us(), &stop).await;
            roller.roll_all(&store, now_us(), &stop).await;
            if stop() {
                return;
            }
            roller.retire_all(&store, now_us()).await;
            clear(&store).await;
            if told.is_none_or(|at| at.elapsed() >= TELL) {
                told = Some(tokio::time::Instant::now());
                tell(&store);
            }
        }
    })
}

/// Deletes what no table and no reader needs any more.
async fn clear(store: &Store) {
    for (table, declared) in stored().iter().enumerate() {
        if let Err(error) = store.delete_replaced(table, KEEP_REPLACED).await {
            tracing::warn!(table = declared.name, error = %chain(&error), "replaced files not deleted");
        }
        if let Err(error) = store.shorten(table, KEEP_LOG).await {
            tracing::warn!(table = declared.name, error = %chain(&error), "log of the table not shortened");
        }
    }
}

/// Says what the tables take, and what they will.
fn tell(store: &Store) {
    let all = usage(&store.snapshot(), &store.keep());
    let (bytes, rows) = all
        .iter()
        .fold((0, 0), |(b, r), u| (b + u.bytes, r + u.rows));
    // From 0: the sum of no floats is -0.
    let predicted = all
        .iter()
        .filter_map(|u| u.predicted_bytes)
        .fold(0.0, |a, b| a + b);
    tracing::info!(
        bytes,
        rows,
        predicted_bytes = predicted.round(),
        "what the tables take"
    );
}

/// Every merge that is due at that time, µs since 1970 UTC, until it is to
/// `stop`; gives their number. A table whose merge fails is left until the next
/// call.
pub async fn merge_all(store: &Store, now_us: i64, stop: &(dyn Fn() -> bool + Sync)) -> u64 {
    let mut merges = 0;
    for (table, declared) in stored().iter().enumerate() {
        while let Some(merge) = due(&store.snapshot().tables[table].files, now_us) {
            let began = Instant::now();
            let outcome = run(store, table, &merge, stop).await;
            store.work.merges.done(began.elapsed(), outcome.is_ok());
            match outcome {
                Ok(()) if stop() => return merges,
                Ok(()) => merges += 1,
                Err(error) => {
                    tracing::warn!(table = declared.name, date = merge.date, error = %chain(&error), "files not merged");
                    break;
                }
            }
        }
    }
    merges
}

async fn run(
    store: &Store,
    table: usize,
    merge: &Merge,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), Error> {
    let name = stored()[table].name;
    let failed = || Error::table("merge files of", name);
    let files: Vec<Arc<DataFile>> = {
        let live = &store.snapshot().tables[table].files;
        let inputs = live.iter().filter(|f| merge.inputs.contains(&f.path));
        inputs.cloned().collect()
    };
    if files.len() != merge.inputs.len() {
        return Ok(());
    }
    let dir = store.table_dir(table);
    let mut writer = FileWriter::create(stored()[table], &dir, &merge.date, merge.generation)?;
    let mut rows = query::sorted(table, &dir, &files, MEMORY).map_err(failed())?;
    while let Some(batch) = rows.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                set_aside_unreadable(store, table, &files).await?;
                return Err(failed()(error));
            }
        };
        if stop() {
            return Ok(());
        }
        // Encoding takes milliseconds: others get their turn in between.
        tokio::task::block_in_place(|| writer.write(&batch))?;
    }
    let merged = tokio::task::block_in_place(|| writer.finish())?;
    let (inputs, size) = (files.len(), merged.size);
    store.replace(table, &files, merged).await?;
    tracing::debug!(
        table = name,
        date = merge.date,
        inputs,
        size,
        generation = merge.generation,
        "files merged"
    );
    Ok(())
}

/// So that one damaged file does not keep the others apart for ever.
pub async fn set_aside_unreadable(
    store: &Store,
    table: usize,
    files: &[Arc<DataFile>],
) -> Result<(), Error> {
    for file in files {
        let path = store.table_dir(table).join(&file.path);
        if !tokio::task::block_in_place(|| query::readable(&path)) {
            store.set_aside(table, &file.path).await?;
        }
    }
    Ok(())
}

/// Now, µs since 1970 UTC.
pub fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

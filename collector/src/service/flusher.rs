//! When rows go to Parquet, and the log is trimmed behind them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::chain;
use crate::store::Store;
use crate::wal::Wal;

/// How often the amount in memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a failed flush, as on a full disk.
const RETRY: Duration = Duration::from_secs(5);

/// Starts the task that flushes by age and size until `stopping`.
pub fn start(
    config: &Config,
    store: &Arc<Store>,
    wal: &Arc<Mutex<Wal>>,
    mut stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let (age, size) = (config.flush, config.flush_size.min(config.hot_limit / 2));
    let (store, wal) = (Arc::clone(store), Arc::clone(wal));
    tokio::spawn(async move {
        let mut due = Instant::now() + age;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|s| *s) => return,
                () = tokio::time::sleep(LOOK.min(age)) => {}
            }
            let old = Instant::now() >= due;
            if !old && store.hot_bytes() < size {
                continue;
            }
            due = Instant::now() + age;
            if !flush(&store, &wal).await {
                due = Instant::now() + RETRY.min(age);
                tokio::time::sleep(RETRY.min(age)).await;
            }
        }
    })
}

/// Flushes and trims once; tells whether all of it worked.
pub async fn flush(store: &Arc<Store>, wal: &Arc<Mutex<Wal>>) -> bool {
    let began = Instant::now();
    let (committed, outcome) = store.flush().await;
    store.work.flushes.done(began.elapsed(), outcome.is_ok());
    let wal = Arc::clone(wal);
    let trimmed = crate::blocking::run(move || {
        wal.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trim(committed)
    })
    .await;
    match trimmed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %chain(&error), "log not trimmed"),
        Err(error) => tracing::warn!(%error, "log not trimmed"),
    }
    outcome.is_ok()
}

//! Where work is done that would hold up the other tasks.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};

/// Set in simulated time only: how long each half of a piece of work takes.
static PACE: OnceLock<fn() -> Duration> = OnceLock::new();

/// From now on, and in the whole process, work is done by the task that asks
/// for it, `pace` after it was asked for and told `pace` later: threads run in
/// real time, and in an order that no seed repeats.
pub fn simulate(pace: fn() -> Duration) {
    let _ = PACE.set(pace);
}

/// Does it on a thread where it may take its time.
///
/// # Errors
/// The work panicked, or the runtime ends.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let Some(pace) = PACE.get() else {
        return spawn_blocking(work).await;
    };
    tokio::time::sleep(pace()).await;
    let done = work();
    // An end of the process in between: done, and nobody was told.
    tokio::time::sleep(pace()).await;
    Ok(done)
}

//! Load and churn: many guests, many events, and what the agent costs then.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "helpers of tests fail, print and take ratios of ns"
)]

mod bare;
mod churn;
mod cost;
mod herd;
mod proc;
mod rates;
#[path = "../ship/server.rs"]
#[expect(dead_code, reason = "the shipping tests order faults, these do not")]
mod server;
mod weight;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headroom_tests::require::lacks;

/// One test at a time: they compete for the same CPUs.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether guests can be made here; prints why not.
fn guests_possible() -> bool {
    let open = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if let Err(error) = &open {
        lacks("kvm", format_args!("/dev/kvm: {error}"));
    }
    open.is_ok()
}

/// Waits for a condition, bounded.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited 30 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

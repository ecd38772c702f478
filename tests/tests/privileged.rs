//! Real guests, real kernel events, the whole chain. One test at a time: they
//! share two CPUs, and each needs them all.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests, their helpers too"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod privileged {
    pub mod crash;
    pub mod faults;
    pub mod page;
    pub mod ramp;
    pub mod ready;
}

/// Held by each test for as long as its guests run.
fn cpus() -> MutexGuard<'static, ()> {
    static CPUS: Mutex<()> = Mutex::new(());
    CPUS.lock().unwrap_or_else(PoisonError::into_inner)
}

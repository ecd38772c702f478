//! The one privileged process of headroom: probes, discovery, windows.
//!
//! **Invariant:** the attached probes and every capability meet only in
//! [`prepare`]; all that runs afterwards runs without.

pub mod bench;
mod cgroup;
pub mod clock;
pub mod config;
mod counters;
pub mod discover;
mod files;
pub mod inventory;
mod memory;
pub mod metrics;
mod print;
pub mod privilege;
pub mod probe;
mod run;
pub mod sampler;
pub mod ship;
pub mod source;
pub mod topology;

pub use print::print_blocking;
pub use run::{Prepared, main_blocking, prepare, run, run_prepared};

//! The lab: tiny real KVM guests with a known load, and experiments which set
//! what headroom measures of them beside an independent truth.
//!
//! It is a crate of its own so that it builds, and its tests run, without the
//! store. Its errors are for the operator's terminal, hence `anyhow`.

use clap::Subcommand;

mod cgroup;
mod guest;
mod guests;
mod payload;
mod terminal;

pub use cgroup::{DEFAULT_WEIGHT, Group};
pub use guest::{Figures, Guest, Spec, Tally, spec};
pub use guests::GuestsArgs;

/// What to do in the lab.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Starts tiny real KVM guests on this host and removes them at the end
    ///
    /// Example: headroom lab guests --count 4 --load 100 --for 60s
    Guests(GuestsArgs),
}

/// Runs a lab command.
///
/// # Errors
/// KVM, QEMU or the cgroup is not to be had.
pub async fn run(lab: Lab) -> anyhow::Result<()> {
    match lab {
        Lab::Guests(args) => guests::run(args).await,
    }
}

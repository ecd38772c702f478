//! The lab: tiny real KVM guests with a known load, and experiments which set
//! what headroom measures of them beside an independent truth.
//!
//! It is a crate of its own so that it builds, and its tests run, without the
//! store. Its errors are for the operator's terminal, hence `anyhow`.
#![forbid(unsafe_code)]

use clap::Subcommand;

mod cgroup;
mod experiment;
mod fleet;
mod guest;
mod guests;
mod measure;
mod report;
mod stage;
pub mod terminal;
pub mod truth;

pub use cgroup::{DEFAULT_WEIGHT, Group, MemoryLimit};
pub use experiment::noisy::culprits;
pub use experiment::oversubscribe::report as oversubscribe;
pub use experiment::{io_delay, memory, multiqueue, noisy, numa, oversubscribe as spinning};
pub use fleet::FleetArgs;
pub use guest::{Figures, Guest, Memory, Tally, spec};
pub use guests::GuestsArgs;
pub use report::{Format, Report, Table};
pub use stage::Stage;

/// What to do in the lab.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Starts tiny real KVM guests on this host and removes them at the end
    ///
    /// Example: headroom lab guests --count 4 --load 100 --for 60s
    Guests(GuestsArgs),
    /// Spinning guests on few CPUs: ready by theory, headroom, schedstat and the guests
    ///
    /// Example: headroom lab oversubscribe --counts 1,2,4,8 --for 5s
    Oversubscribe(spinning::OversubscribeArgs),
    /// A victim while neighbours are switched on and off: its ready and who took it
    ///
    /// Example: headroom lab noisy --rounds 2 --phase 4s
    Noisy(noisy::NoisyArgs),
    /// Disks of a known delay: latency as the guest sees it and as headroom does
    ///
    /// Example: headroom lab io-delay --delays 0s,5ms,20ms --iops 40
    IoDelay(io_delay::IoDelayArgs),
    /// A vCPU moved between NUMA nodes a known number of times
    ///
    /// Example: headroom lab numa --moves 40
    Numa(numa::NumaArgs),
    /// A guest that outgrows the memory limit of its cgroup
    ///
    /// Example: headroom lab memory --limit-mib 64 -o json
    Memory(memory::MemoryArgs),
    /// What more queues and more iothreads give a virtio-blk disk here
    ///
    /// Example: headroom lab multiqueue --vcpus 2 --depth 8
    Multiqueue(multiqueue::MultiqueueArgs),
    /// Ships the rows of hosts that do not exist, over real CPU series, to a collector
    ///
    /// Example: headroom lab fleet --hosts 20 --vms 30 --backfill 24h
    Fleet(FleetArgs),
}

/// Runs a lab command; whatever it made is removed when it ends, also when it
/// is interrupted.
///
/// # Errors
/// KVM, QEMU or the cgroup is not to be had.
pub async fn run(lab: Lab) -> anyhow::Result<()> {
    // Its own end at an interrupt tells what the guests did.
    let lab = match lab {
        Lab::Guests(args) => return guests::run(args).await,
        Lab::Fleet(args) => return fleet::run(args).await,
        lab => lab,
    };
    tokio::select! {
        r = experiment::run(lab) => r,
        () = terminal::interrupted() => anyhow::bail!("interrupted; all guests are removed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        _lab: Lab,
    }

    #[test]
    fn flags_are_consistent_and_every_command_has_an_example() {
        Cli::command().debug_assert();
        let mut cli = Cli::command();
        for command in cli.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example: headroom lab "), "{help}");
        }
    }
}

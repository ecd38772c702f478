//! `headroom lab guests`: real guests to look at.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::cgroup::DEFAULT_WEIGHT;
use crate::guest::{Guest, Spec};
use crate::stage::Stage;
use crate::terminal::{duration, interrupted, say};
use flags::{DiskFlags, MemoryFlags};
use headroom_payload as payload;

mod flags;

/// How often a ramp moves the load.
const RAMP_STEP: Duration = Duration::from_millis(500);

/// Flags of `headroom lab guests`.
#[derive(Args, Debug)]
pub struct GuestsArgs {
    /// Number of guests
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    count: u32,
    /// Busy share of each vCPU in percent
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    load: u8,
    /// Let the load move to this share evenly over the time given with --for
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    ramp_to: Option<u8>,
    /// vCPUs of each guest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(payload::MAX_VCPUS)))]
    vcpus: u32,
    /// How long
    #[arg(long = "for", default_value = "60s", value_parser = duration)]
    time: Duration,
    /// CPU weight of all guests together against the rest of the host (1-10000)
    #[arg(long, default_value_t = DEFAULT_WEIGHT, value_parser = clap::value_parser!(u32).range(1..=10000))]
    weight: u32,
    /// Names are this and a number
    #[arg(long, default_value = "lab")]
    name: String,
    #[command(flatten)]
    disk: DiskFlags,
    #[command(flatten)]
    memory: MemoryFlags,
}

/// Runs the guests until their time is over.
///
/// # Errors
/// KVM, QEMU or the cgroup is not to be had.
pub async fn run(args: GuestsArgs) -> anyhow::Result<()> {
    if args.ramp_to.is_some() && args.time < RAMP_STEP * 2 {
        bail!("--ramp-to needs a longer --for than 1s");
    }
    let stage = Stage::set(args.weight)?;
    let mut guests = Vec::new();
    for n in 1..=args.count {
        let spec = Spec {
            name: format!("{}{n}", args.name),
            vcpus: args.vcpus,
            load: args.load,
            disk: args.disk.disk(),
            memory_mib: args.memory.mib(),
        };
        let guest = stage.guest(&spec)?;
        args.memory.apply(&guest)?;
        say(&format!(
            "started {} pid {} vcpus {} load {}",
            guest.name(),
            guest.pid(),
            args.vcpus,
            args.load
        ));
        guests.push(guest);
    }
    say(&format!(
        "running {} guests for {:?}; Ctrl-C ends them",
        guests.len(),
        args.time
    ));
    tokio::select! {
        r = hold(&guests, &args) => r?,
        () = interrupted() => {}
    }
    if args.disk.io {
        for guest in &guests {
            let figures = guest.memory().figures()?;
            say(&format!(
                "{} did {} requests, {:.2} ms each, {} failed",
                guest.name(),
                figures.done.count,
                figures.done.mean_ns().unwrap_or(0.0) / 1e6,
                figures.errors
            ));
        }
    }
    drop(guests);
    say("removed all guests");
    Ok(())
}

async fn hold(guests: &[Guest], args: &GuestsArgs) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < args.time {
        if let Some(to) = args.ramp_to {
            let done = begin.elapsed().as_secs_f64() / args.time.as_secs_f64();
            let load = f64::from(args.load) + (f64::from(to) - f64::from(args.load)) * done;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between two shares of 0..=100"
            )]
            let load = load.round() as u8;
            for guest in guests {
                guest.memory().set_load(load)?;
            }
        }
        tokio::time::sleep(RAMP_STEP.min(args.time.saturating_sub(begin.elapsed()))).await;
    }
    Ok(())
}

//! `headroom-sim`: agents and a collector in simulated time, on a simulated
//! network and disk, with crashes, partitions and failing disks by seed.
//!
//! **Invariant:** one seed a process. Time and randomness of the whole process
//! are the seed's (mad-turmoil), so the same seed gives the same digest.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod book;
mod chance;
mod disk;
mod hosts;
mod net;
mod plan;
mod tables;
mod trace;
mod verdict;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use verdict::Verdict;
use world::{Without, World};

/// Runs one seed and says what came of it; exit code 1 if rows were lost,
/// duplicated or miscounted.
#[derive(Parser)]
struct Args {
    /// The seed.
    #[arg(long)]
    seed: u64,
    /// Shows each event.
    #[arg(long)]
    events: bool,
    /// Takes a part away: a control, to see that it is missed.
    #[arg(long)]
    without: Option<Without>,
    /// Empty directory for the files; removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "a command's answer")]
fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(verdict) => {
            println!("seed={} {verdict}", args.seed);
            ExitCode::from(u8::from(!verdict.holds()))
        }
        Err(error) => {
            println!("seed={} failed: {error:#}", args.seed);
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    // Before anything asks for a random number: the process's id is not the
    // seed's, and only names the directory.
    let name = format!("headroom-sim-{}", std::process::id());
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(name));
    std::fs::create_dir_all(&dir)?;
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(args.seed));
    fastrand::seed(args.seed);
    headroom_collector::embedded::simulate(chance::pace);
    let clocks = mad_turmoil::time::SimClocksGuard::init();
    let verdict = World::new(args.seed, &dir, args.without, args.events).and_then(World::run);
    drop(clocks);
    std::fs::remove_dir_all(&dir)?;
    verdict
}

//! What each of our programs costs by the kernel's own clock. Measured apart
//! from the throughput: the measuring itself slows every program.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::game::Game;
use crate::bench::read::{self, ReadCosts};
use crate::bench::report::{LeftOut, ProgramFigure};
use crate::bench::{BenchError, ProbesOptions};
use crate::probe::{CostMeter, Probes, ProgramCost};

/// Round trips over which the kernel measures the programs of the scheduler.
const SCHED_OPERATIONS: u32 = 20_000;
/// The mixed load lasts this long without guests.
const MIXED: Duration = Duration::from_secs(1);
/// And never longer than this with guests.
const MIXED_MOST: Duration = Duration::from_secs(30);
/// A piece of the mixed load: round trips, and reads.
const PIECE: (u32, u32) = (500, 50);

/// All of it.
pub struct Costs {
    pub source: &'static str,
    pub map_bytes: u64,
    pub ns_per_switch: f64,
    pub ns_per_wakeup: f64,
    pub programs: Vec<ProgramFigure>,
    pub read_us: ReadCosts,
}

/// Measures with both threads of the ping-pong registered.
pub fn costs(
    game: &mut Game,
    options: &ProbesOptions,
    left_out: &mut Vec<LeftOut>,
) -> Result<Costs, BenchError> {
    let mut probes = Probes::attach(&options.probes)?;
    let absent = probes.families().iter().filter_map(|family| {
        family.reason.as_ref().map(|reason| LeftOut {
            what: format!("family {}", family.family),
            reason: reason.clone(),
        })
    });
    left_out.extend(absent);
    let [own, _other] = game.register(&mut probes)?;
    let read_us = read::costs(&mut probes, &own)?;
    let meter = CostMeter::start()?;
    game.pingpong(SCHED_OPERATIONS)?;
    let sched = probes.costs()?;
    mixed(game, options, left_out)?;
    let all = probes.costs()?;
    drop(meter);
    let of = |hook: &str| {
        let cost = sched.iter().find(|cost| cost.hook == hook);
        cost.and_then(mean).unwrap_or(f64::NAN)
    };
    let mut programs: Vec<_> = all.iter().map(figure).collect();
    programs.sort_by(|a, b| (a.family, &a.hook).cmp(&(b.family, &b.hook)));
    Ok(Costs {
        source: probes.source(),
        map_bytes: probes.map_bytes(),
        ns_per_switch: of("sched_switch"),
        ns_per_wakeup: of("sched_waking"),
        programs,
        read_us,
    })
}

/// Switches, reads of a disk, and guests if there are any.
fn mixed(
    game: &mut Game,
    options: &ProbesOptions,
    left_out: &mut Vec<LeftOut>,
) -> Result<(), BenchError> {
    let mut guests = start(options);
    let begin = Instant::now();
    loop {
        game.pingpong(PIECE.0)?;
        if game.has_disk() {
            game.reads(PIECE.1)?;
        }
        let running = guests
            .as_mut()
            .is_ok_and(|guests| matches!(guests.try_wait(), Ok(None)));
        let elapsed = begin.elapsed();
        if elapsed >= MIXED_MOST || (elapsed >= MIXED && !running) {
            break;
        }
    }
    if let Err(reason) = guests.and_then(end) {
        let what = "guests in the mixed load".to_owned();
        left_out.push(LeftOut { what, reason });
    }
    Ok(())
}

fn start(options: &ProbesOptions) -> Result<Child, String> {
    let [program, args @ ..] = options.guests.as_slice() else {
        return Err("no command to start guests was given, as without /dev/kvm".to_owned());
    };
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())
}

fn end(mut guests: Child) -> Result<(), String> {
    // Over by itself, unless it takes longer than it should.
    drop(guests.kill());
    match guests.wait() {
        Ok(status) if status.code().is_none_or(|code| code == 0) => Ok(()),
        Ok(status) => Err(format!("the command that starts them: {status}")),
        Err(error) => Err(error.to_string()),
    }
}

fn figure(cost: &ProgramCost) -> ProgramFigure {
    ProgramFigure {
        family: cost.family,
        hook: cost.hook.clone(),
        runs: cost.runs,
        ns: mean(cost),
    }
}

fn mean(cost: &ProgramCost) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "some 10^6 runs")]
    (cost.runs > 0).then(|| cost.time.as_secs_f64() * 1e9 / cost.runs as f64)
}

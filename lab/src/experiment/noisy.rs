//! `headroom lab noisy`: a victim, and neighbours that are switched on and off.

use std::time::{Duration, Instant};

use clap::Args;
use headroom_agent::sampler::Window;
use serde_json::{Map, Value};

use super::{Common, percent};
use crate::guest::{Guest, Spec};
use crate::measure::{self, Meter};
use crate::report::{Report, Table};
use crate::stage::Stage;
use crate::terminal::duration;
use crate::truth::{self, VCPUS};

const VICTIM: &str = "victim";
/// Table that tells who took the CPU from whom.
const BLAME: &str = "blame";
/// After a switch, until the scheduler has spread the guests anew.
const SETTLE: Duration = Duration::from_millis(500);

/// Flags of `headroom lab noisy`.
#[derive(Args, Clone, Debug)]
pub struct NoisyArgs {
    /// Busy share of the victim in percent
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u8).range(1..=100))]
    load: u8,
    /// Neighbours, each busy all the time while switched on; twice the CPUs
    /// when left out
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=255))]
    neighbours: Option<u32>,
    /// How often the neighbours are switched on and off
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long they are on, and off, each time
    #[arg(long, default_value = "4s", value_parser = duration)]
    phase: Duration,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &[(&str, &str)] = &[
    ("neighbours", "neighbours"),
    ("headroom_pct", "victim's ready %: headroom"),
    ("schedstat_pct", "schedstat"),
    ("steal_pct", "its own steal"),
    ("neighbours_run_pct", "CPU taken by neighbours %"),
];

/// Runs it and prints its figures.
///
/// # Errors
/// Not root, or KVM or QEMU is missing.
pub async fn run(args: &NoisyArgs) -> anyhow::Result<()> {
    let stage = Stage::of_root("noisy", args.common.weight)?;
    let report = report(&stage, args).await?;
    // A closed pipe ends the process while it prints: the stage goes before.
    drop(stage);
    report.print(args.common.output);
    Ok(())
}

/// Who took the CPU from a VM in a window, as table `blame` has it; `None`
/// when this headroom has no such table.
#[must_use]
pub fn culprits(window: &Window, victim: &str) -> Option<Vec<Map<String, Value>>> {
    measure::rows_of(window, BLAME, victim)
}

async fn report(stage: &Stage, args: &NoisyArgs) -> anyhow::Result<Report> {
    let mut meter = Meter::attach();
    let cpus = std::thread::available_parallelism()?.get();
    let count = args
        .neighbours
        .unwrap_or_else(|| u32::try_from(2 * cpus).unwrap_or(2));
    let victim = stage.guest(&Spec {
        load: args.load,
        ..Spec::new(VICTIM)
    })?;
    let neighbours = (1..=count)
        .map(|n| stage.guest(&Spec::new(&format!("neighbour{n}"))))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut report = Report::default();
    let mut table = Table::new("noisy", COLUMNS);
    for noisy in [false, true].repeat(usize::try_from(args.rounds)?) {
        for guest in &neighbours {
            guest.memory().set_load(if noisy { 100 } else { 0 })?;
        }
        tokio::time::sleep(SETTLE).await;
        let (row, window) = phase(&mut meter, args.phase, &victim, &neighbours).await?;
        let cells = [if noisy { "on" } else { "off" }.into()];
        table.push(cells.into_iter().chain(row).collect());
        if noisy {
            blame(&mut report, &window);
        }
    }
    report.tables.push(table);
    report.notes.push(meter.note());
    Ok(report)
}

fn blame(report: &mut Report, window: &Window) {
    match culprits(window, VICTIM) {
        Some(rows) => report
            .seen
            .extend(rows.into_iter().map(|row| (BLAME.to_owned(), row))),
        None => {
            let note = "who took it: unavailable, this headroom has no table blame";
            if !report.notes.iter().any(|n| n == note) {
                report.notes.push(note.to_owned());
            }
        }
    }
}

async fn phase(
    meter: &mut Meter,
    time: Duration,
    victim: &Guest,
    neighbours: &[Guest],
) -> anyhow::Result<([Value; 4], Window)> {
    let read = || {
        let taken = neighbours.iter().try_fold(0, |sum, guest| {
            anyhow::Ok(sum + truth::times(guest.pid(), VCPUS)?.run_ns)
        })?;
        let steal = victim.memory().steal_ns(0)?;
        anyhow::Ok((
            Instant::now(),
            truth::times(victim.pid(), VCPUS)?,
            steal,
            taken,
        ))
    };
    meter.cut();
    let (from, times_then, steal_then, taken_then) = read()?;
    meter.pass(time).await;
    let window = meter.cut();
    let (to, times, steal, taken) = read()?;
    let whole = u64::try_from(to.duration_since(from).as_nanos()).unwrap_or(u64::MAX);
    let stolen = steal.zip(steal_then).map(|(b, a)| b.saturating_sub(a));
    let row = [
        measure::ready_pct(&window, VICTIM).into(),
        percent(times.since(times_then).ready_ns, whole),
        stolen.map_or(Value::Null, |ns| percent(ns, whole)),
        percent(taken - taken_then, whole),
    ];
    Ok((row, window))
}

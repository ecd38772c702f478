//! `headroom lab oversubscribe`: n spinning guests on k CPUs wait 1 − k/n of
//! the time.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::{Common, percent};
use crate::guest::{Guest, Spec};
use crate::measure::Meter;
use crate::report::{Report, Table};
use crate::stage::Stage;
use crate::terminal::duration;
use crate::truth::{self, Times, VCPUS};

/// Let the scheduler spread the guests before the window begins.
const SETTLE: Duration = Duration::from_millis(1500);

/// Flags of `headroom lab oversubscribe`.
#[derive(Args, Clone, Debug)]
pub struct OversubscribeArgs {
    /// Numbers of guests to run, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,6,8", value_parser = clap::value_parser!(u32).range(1..=256))]
    counts: Vec<u32>,
    /// How long to measure each number
    #[arg(long = "for", default_value = "5s", value_parser = duration)]
    time: Duration,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &[(&str, &str)] = &[
    ("guests", "guests"),
    ("cpus", "CPUs"),
    ("theory_pct", "theory %"),
    ("headroom_pct", "headroom %"),
    ("schedstat_pct", "schedstat %"),
    ("steal_pct", "guest's steal %"),
];

/// Runs it and prints its figures.
///
/// # Errors
/// Not root, or KVM or QEMU is missing.
pub async fn run(args: &OversubscribeArgs) -> anyhow::Result<()> {
    let stage = Stage::of_root("oversubscribe", args.common.weight)?;
    let report = report(&stage, &args.counts, args.time).await?;
    // A closed pipe ends the process while it prints: the stage goes before.
    drop(stage);
    report.print(args.common.output);
    Ok(())
}

/// The figures for each number of spinning guests: mean ready of a vCPU.
///
/// # Errors
/// A guest does not start or dies.
pub async fn report(stage: &Stage, counts: &[u32], time: Duration) -> anyhow::Result<Report> {
    let mut table = Table::new("oversubscribe", COLUMNS);
    let cpus = std::thread::available_parallelism()?.get();
    let mut meter = Meter::attach();
    for count in counts {
        let guests = (1..=*count)
            .map(|n| {
                stage.guest(&Spec {
                    load: 100,
                    ..Spec::new(&format!("spin{n}"))
                })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        tokio::time::sleep(SETTLE).await;
        meter.cut();
        let before = Truth::read(&guests)?;
        meter.pass(time).await;
        let window = meter.cut();
        let after = Truth::read(&guests)?;
        let ours = guests.iter().filter_map(|guest| {
            let row = window.vms.iter().find(|vm| vm.vm_name == guest.name())?;
            Some((row.ready_ns, row.window_ns * row.vcpus))
        });
        let (ready, provisioned) = ours.fold((0, 0), |(r, p), (dr, dp)| (r + dr, p + dp));
        let (schedstat, steal) = after.since(&before, *count);
        table.push(vec![
            (*count).into(),
            cpus.into(),
            theory_pct(*count, cpus).into(),
            percent(
                u64::try_from(ready).unwrap_or(0),
                u64::try_from(provisioned).unwrap_or(0),
            ),
            schedstat,
            steal,
        ]);
    }
    Ok(Report {
        tables: vec![table],
        seen: Vec::new(),
        notes: vec![
            meter.note(),
            "other load on this host adds to all but the theory".to_owned(),
        ],
    })
}

/// Share of the time that each of n spinning vCPUs waits on k CPUs, percent.
fn theory_pct(guests: u32, cpus: usize) -> f64 {
    let cpus = f64::from(u32::try_from(cpus).unwrap_or(u32::MAX));
    100.0 * (1.0 - cpus / f64::from(guests)).max(0.0)
}

struct Truth {
    at: Instant,
    times: Times,
    steal_ns: Option<u64>,
}

impl Truth {
    fn read(guests: &[Guest]) -> anyhow::Result<Self> {
        let mut times = Times::default();
        let mut steal_ns = Some(0);
        for guest in guests {
            let of = truth::times(guest.pid(), VCPUS)?;
            times.run_ns += of.run_ns;
            times.ready_ns += of.ready_ns;
            let steal = guest.memory().steal_ns(0)?;
            steal_ns = steal_ns.zip(steal).map(|(sum, ns)| sum + ns);
        }
        Ok(Self {
            at: Instant::now(),
            times,
            steal_ns,
        })
    }

    fn since(&self, earlier: &Self, guests: u32) -> (Value, Value) {
        let elapsed = self.at.duration_since(earlier.at).as_nanos();
        let whole = u64::try_from(elapsed).unwrap_or(u64::MAX) * u64::from(guests);
        let steal = self.steal_ns.zip(earlier.steal_ns);
        (
            percent(self.times.since(earlier.times).ready_ns, whole),
            steal.map_or(Value::Null, |(now, then)| {
                percent(now.saturating_sub(then), whole)
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_what_the_cpus_cannot_give() {
        assert!(theory_pct(1, 2).abs() < 1e-9);
        assert!(theory_pct(2, 2).abs() < 1e-9);
        assert!((theory_pct(4, 2) - 50.0).abs() < 1e-9);
        assert!((theory_pct(8, 2) - 75.0).abs() < 1e-9);
    }
}

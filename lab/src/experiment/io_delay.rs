//! `headroom lab io-delay`: disks that take a known time, beside one that
//! takes none.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::{Common, add_seen, per};
use crate::guest::spec::Backing;
use crate::guest::{Disk, Guest, Spec};
use crate::measure::Meter;
use crate::report::{Report, Table};
use crate::stage::Stage;
use crate::terminal::duration;

/// Tables of headroom that tell of virtqueues and disks.
const TABLES: &[&str] = &["vm_queues", "vm_disks"];
const SETTLE: Duration = Duration::from_millis(500);

/// Flags of `headroom lab io-delay`.
#[derive(Args, Clone, Debug)]
pub struct IoDelayArgs {
    /// One guest for each of these delays of its disk
    #[arg(long, value_delimiter = ',', default_value = "0s,5ms,20ms", value_parser = duration)]
    delays: Vec<Duration>,
    /// Requests a second of each guest
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    iops: u32,
    /// Requests in flight at most
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    depth: u32,
    /// Let QEMU's main loop serve the disks, not an iothread each
    #[arg(long)]
    main_loop: bool,
    /// How long
    #[arg(long = "for", default_value = "5s", value_parser = duration)]
    time: Duration,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &[(&str, &str)] = &[
    ("vm", "guest"),
    ("delay_ms", "delay ms"),
    ("iops", "IOPS"),
    ("guest_mean_ms", "guest's mean ms"),
    ("guest_max_ms", "max ms"),
    ("errors", "errors"),
    ("iothread_run_us", "iothread's CPU µs a request"),
];

/// Runs it and prints its figures.
///
/// # Errors
/// Not root, or KVM or QEMU is missing.
pub async fn run(args: &IoDelayArgs) -> anyhow::Result<()> {
    let stage = Stage::of_root("io-delay", args.common.weight)?;
    let report = report(&stage, args).await?;
    // A closed pipe ends the process while it prints: the stage goes before.
    drop(stage);
    report.print(args.common.output);
    Ok(())
}

async fn report(stage: &Stage, args: &IoDelayArgs) -> anyhow::Result<Report> {
    let mut meter = Meter::attach();
    let guests = args
        .delays
        .iter()
        .enumerate()
        .map(|(n, delay)| {
            let disk = Disk {
                iothread: !args.main_loop,
                depth: args.depth,
                ..Disk::new(Backing::Null { latency: *delay }, args.iops)
            };
            let guest = stage.guest(&Spec {
                disk: Some(disk),
                ..Spec::new(&format!("disk{}", n + 1))
            })?;
            Ok((guest, *delay))
        })
        .collect::<anyhow::Result<Vec<(Guest, Duration)>>>()?;
    tokio::time::sleep(SETTLE).await;
    meter.cut();
    let read =
        || -> anyhow::Result<Vec<_>> { guests.iter().map(|(g, _)| g.memory().figures()).collect() };
    let (before, begin) = (read()?, Instant::now());
    meter.pass(args.time).await;
    let window = meter.cut();
    let (after, elapsed) = (read()?, begin.elapsed());
    let mut table = Table::new("io-delay", COLUMNS);
    let mut report = Report::default();
    for ((guest, delay), (then, now)) in guests.iter().zip(before.iter().zip(&after)) {
        let done = now.done.since(&then.done);
        let vm = window.vms.iter().find(|vm| vm.vm_name == guest.name());
        let each = |ns: i64| per(u64::try_from(ns).unwrap_or(0), 1e3) / per(done.count.max(1), 1.0);
        table.push(vec![
            guest.name().into(),
            (delay.as_secs_f64() * 1e3).into(),
            (per(done.count, 1.0) / elapsed.as_secs_f64()).into(),
            done.mean_ns().map(|ns| ns / 1e6).into(),
            per(done.max_ns, 1e6).into(),
            (now.errors - then.errors).into(),
            vm.filter(|_| !args.main_loop)
                .map_or(Value::Null, |vm| each(vm.iothread_run_ns).into()),
        ]);
        add_seen(&mut report, &window, TABLES, guest.name());
    }
    report.tables.push(table);
    report.notes.push(meter.note());
    report.notes.push(
        "the guest's time is the delay and the way there and back; max is since its start"
            .to_owned(),
    );
    Ok(report)
}

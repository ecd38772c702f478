//! `headroom lab multiqueue`: what more queues and more iothreads give.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::{Common, add_seen, per, percent};
use crate::guest::spec::{Backing, Layout};
use crate::guest::{Disk, Spec};
use crate::measure::Meter;
use crate::report::{Report, Table};
use crate::stage::Stage;
use crate::terminal::duration;
use crate::truth::{self, IOTHREADS};

/// Table of headroom that tells of virtqueues.
const TABLES: &[&str] = &["vm_queues"];
const SETTLE: Duration = Duration::from_millis(500);

/// Flags of `headroom lab multiqueue`.
#[derive(Args, Clone, Debug)]
pub struct MultiqueueArgs {
    /// vCPUs of the guest; with more than one queue each drives its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=i64::from(headroom_payload::MAX_VCPUS)))]
    vcpus: u32,
    /// Requests in flight of the guest as a whole
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    depth: u32,
    /// Time that the disk takes for each request
    #[arg(long, default_value = "200us", value_parser = duration)]
    delay: Duration,
    /// How long to measure each
    #[arg(long = "for", default_value = "5s", value_parser = duration)]
    time: Duration,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &[(&str, &str)] = &[
    ("layout", "layout"),
    ("queues", "queues"),
    ("iothreads", "iothreads"),
    ("iops", "IOPS"),
    ("mean_us", "guest's mean µs"),
    ("kicks_per_request", "kicks a request"),
    ("iothread_run_pct", "iothreads' CPU %"),
    ("iothread_ready_pct", "ready %"),
    ("iothread_switch_ready_us", "mean wait of a switch-in µs"),
];

/// Runs it and prints its figures.
///
/// # Errors
/// Not root, or KVM or QEMU is missing.
pub async fn run(args: &MultiqueueArgs) -> anyhow::Result<()> {
    let stage = Stage::of_root("multiqueue", args.common.weight)?;
    let report = report(&stage, args).await?;
    // A closed pipe ends the process while it prints: the stage goes before.
    drop(stage);
    report.print(args.common.output);
    Ok(())
}

async fn report(stage: &Stage, args: &MultiqueueArgs) -> anyhow::Result<Report> {
    let mut meter = Meter::attach();
    let mut report = Report::default();
    let mut table = Table::new("multiqueue", COLUMNS);
    for (name, layout) in [
        ("one disk, one queue", Layout::OneQueue),
        ("one disk, a queue a vCPU", Layout::QueuePerVcpu),
        ("a disk and iothread a vCPU", Layout::DiskPerVcpu),
    ] {
        let row = layout_row(stage, args, layout, &mut meter, &mut report).await?;
        table.push(std::iter::once(name.into()).chain(row).collect());
    }
    report.tables.push(table);
    report.notes.push(meter.note());
    report.notes.push(
        "QEMU before 9.0 serves all queues of one disk by one iothread: only more disks bring more iothreads".to_owned(),
    );
    let cpus = std::thread::available_parallelism()?.get();
    report.notes.push(format!(
        "{} vCPUs and the iothreads share {cpus} CPUs: where they compete, more threads bring nothing",
        args.vcpus
    ));
    Ok(report)
}

async fn layout_row(
    stage: &Stage,
    args: &MultiqueueArgs,
    layout: Layout,
    meter: &mut Meter,
    report: &mut Report,
) -> anyhow::Result<[Value; 8]> {
    let queues = if layout == Layout::OneQueue {
        1
    } else {
        args.vcpus
    };
    let spec = Spec {
        vcpus: args.vcpus,
        disk: Some(Disk {
            layout,
            depth: (args.depth / queues).max(1),
            ..Disk::new(
                Backing::Null {
                    latency: args.delay,
                },
                0,
            )
        }),
        ..Spec::new("queues")
    };
    let guest = stage.guest(&spec)?;
    tokio::time::sleep(SETTLE).await;
    meter.cut();
    let read = || {
        anyhow::Ok((
            guest.memory().figures()?,
            truth::times(guest.pid(), IOTHREADS)?,
        ))
    };
    let (figures_then, times_then) = read()?;
    let begin = Instant::now();
    meter.pass(args.time).await;
    let window = meter.cut();
    let (figures, times) = read()?;
    let elapsed = begin.elapsed();
    let done = figures.done.since(&figures_then.done);
    let times = times.since(times_then);
    let whole = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    let kicks = u64::from(figures.kicks.wrapping_sub(figures_then.kicks));
    let wait = (times.slices > 0).then(|| per(times.ready_ns, 1e3) / per(times.slices, 1.0));
    add_seen(report, &window, TABLES, guest.name());
    Ok([
        queues.into(),
        spec.disks().into(),
        (per(done.count, 1.0) / elapsed.as_secs_f64()).into(),
        done.mean_ns().map(|ns| ns / 1e3).into(),
        (per(kicks, 1.0) / per(done.count.max(1), 1.0)).into(),
        percent(times.run_ns, whole),
        percent(times.ready_ns, whole),
        wait.into(),
    ])
}

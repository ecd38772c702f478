//! What a machine of twice as many spinning vCPUs as CPUs shows beside the
//! ready of each: depth, switches, owners of CPUs, culprits. One run for all.

use std::collections::BTreeMap;
use std::sync::Arc;

use headroom_vmlab::message::{CpuSeries, Series as Truth};
use headroom_vmlab::{Report, Run, Scenario, Series};
use serde_json::Value;

use super::rows::{cpu, int, only, share, sum, tolerance, total, vcpu, within, within_sure};

/// Of the depth, by the issue.
const DEPTH: f64 = 0.05;
/// Of switches, capacity and sums of waits.
const AGREEMENT: f64 = 0.01;
/// Of blame against ready.
const BLAME: f64 = 0.02;

/// Four spinning vCPUs on two CPUs.
const DEPTH_OF_VCPUS: f64 = 2.0;

const OWNERS: [&str; 9] = [
    "vcpu_ns",
    "iothread_ns",
    "vhost_ns",
    "emulator_ns",
    "host_ns",
    "kernel_ns",
    "interrupt_ns",
    "idle_ns",
    "unknown_ns",
];

fn nested(series: Series) -> Option<Arc<Report>> {
    crate::run(series, Scenario::Nested)
}

/// All waits of a time over its length is how many waited on average.
pub fn depth(series: Series) {
    let Some(report) = nested(series) else { return };
    let run = only(&report);
    let (mut told, mut truth) = (0.0, 0.0);
    for series in cpus(&report) {
        let windows = cpu(run, series.cpu);
        let (windows, (begin, end)) = within(&windows, series.span_us());
        let (_, waited) = series.between(begin, end).unwrap();
        let length = sum(&windows, "window_ns");
        let depths = windows.iter().map(|w| {
            let depth = w.row["depth"].as_f64().unwrap();
            depth * share(w.window_ns, length)
        });
        let (depth, waiting) = (depths.sum::<f64>(), waited / nanoseconds(begin, end));
        println!(
            "CPU {}: depth {depth:.3}, of schedstat {waiting:.3}",
            series.cpu
        );
        told += depth;
        truth += waiting;
    }
    let of = told / truth;
    println!("both: {told:.3}, of schedstat {truth:.3}: {of:.4}");
    // The agent and the recorder wait as well, so it is rather more than two.
    assert!(truth > DEPTH_OF_VCPUS * (1.0 - DEPTH), "{truth:.3}");
    assert!((of - 1.0).abs() <= tolerance(&report, DEPTH), "{of:.4}");
}

/// A switch of a vCPU's thread is one that it asked for or another.
pub fn switches(series: Series) {
    let Some(report) = nested(series) else { return };
    let of = switches_of(&report);
    assert!((of - 1.0).abs() <= tolerance(&report, AGREEMENT), "{of:.4}");
}

/// What the rows tell of all threads, by what `/proc` does.
pub fn switches_of(report: &Report) -> f64 {
    let run = only(report);
    let (mut told, mut truth) = (0, 0.0);
    for series in report.truth::<Vec<Truth>>("series").unwrap() {
        let windows = vcpu(run, series.tid);
        // Switches are looked at more seldom than times.
        let seen = |at: Option<&(i64, u64)>| at.map_or(0, |(us, _)| *us);
        let seen = (
            seen(series.switches.first()) + 1,
            seen(series.switches.last()),
        );
        let (windows, _) = within_sure(&windows, &series);
        let (windows, (begin, end)) = within(&windows, seen);
        let switches = sum(&windows, "switches");
        let of_status = series.switches_between(begin, end).unwrap();
        println!(
            "{}: {switches} switches, {of_status:.1} by status",
            series.vm
        );
        told += switches;
        truth += of_status;
    }
    assert!(told > 500, "{told} switches");
    f64::from(i32::try_from(told).unwrap()) / truth
}

/// Run + overhead + idle = capacity, on each CPU and together, and vCPUs had
/// what the kernel says that their threads ran.
pub fn capacity(series: Series) {
    let Some(report) = nested(series) else { return };
    capacity_of(&report);
}

pub fn capacity_of(report: &Report) {
    let run = only(report);
    let mut rows = Vec::new();
    for row in run.rows("cpus") {
        let owned: i64 = OWNERS.iter().map(|owner| int(row, owner)).sum();
        rows.push((owned, int(row, "window_ns")));
    }
    all_owned("cpus", &rows);
    let mut windows: BTreeMap<i64, Vec<&Value>> = BTreeMap::new();
    for row in run.rows("cpu_owners") {
        windows.entry(int(row, "ts")).or_default().push(row);
    }
    let mut rows = Vec::new();
    for window in windows.values() {
        assert_eq!(window.len(), OWNERS.len(), "{window:?}");
        let capacity = int(window[0], "window_ns") * 2;
        rows.push((total(window, "time_ns"), capacity));
    }
    all_owned("cpu_owners", &rows);
    for series in cpus(report) {
        let windows = cpu(run, series.cpu);
        let (windows, (begin, end)) = within(&windows, series.span_us());
        let of = |column| share(sum(&windows, column), sum(&windows, "window_ns"));
        let (ran, _) = series.between(begin, end).unwrap();
        let (ran, idle) = (ran / nanoseconds(begin, end), of("idle_ns"));
        let interrupt = of("interrupt_ns");
        println!(
            "CPU {}: idle {idle:.4}, interrupts {interrupt:.4}, tasks by schedstat {ran:.4}",
            series.cpu
        );
        // Interrupts of an idle CPU are in neither, those of a busy one are in
        // what its tasks ran: up to 4 % of the time on a disturbed machine.
        let (least, most) = (ran + idle, ran + idle + interrupt);
        let tolerance = tolerance(report, AGREEMENT);
        assert!(least <= 1.0 + tolerance && most >= 1.0 - tolerance);
        assert_eq!(sum(&windows, "unknown_ns"), 0);
    }
    vcpus_had_what_they_ran(report);
}

/// Times that owners had, and capacities, window by window.
fn all_owned(table: &str, rows: &[(i64, i64)]) {
    let off = |(owned, capacity): &(i64, i64)| (share(*owned, *capacity) - 1.0).abs();
    let worst = rows.iter().map(off).fold(0.0, f64::max);
    println!("{table}: owners are off capacity by {worst:.6} at most");
    assert!(!rows.is_empty() && worst <= AGREEMENT, "{rows:?}");
}

/// Two ways to the same: threads that ran, and CPUs that were theirs but for
/// what interrupts took.
fn vcpus_had_what_they_ran(report: &Report) {
    let run = only(report);
    let ran = shares(run, "vcpus", "tid", "run_ns");
    let theirs = shares(run, "cpus", "cpu", "vcpu_ns");
    let interrupts = shares(run, "cpus", "cpu", "interrupt_ns");
    println!("vCPUs ran on {ran:.4} CPUs, had {theirs:.4}, interrupts {interrupts:.4}");
    let slack = ran * tolerance(report, BLAME);
    assert!(theirs <= ran + slack, "{theirs:.4} of {ran:.4}");
    assert!(
        theirs + interrupts >= ran - slack,
        "{theirs:.4} of {ran:.4}"
    );
}

/// A column's share of the time of each thing of a table, added up.
fn shares(run: &Run, table: &str, key: &str, column: &str) -> f64 {
    let mut times: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for row in run.rows(table) {
        let (part, whole) = times.entry(int(row, key)).or_default();
        *part += int(row, column);
        *whole += int(row, "window_ns");
    }
    times
        .values()
        .map(|(part, whole)| share(*part, *whole))
        .sum()
}

/// The same waits in each table, as many as ended, of the length that they
/// had; and nothing was dropped, by counters that are there.
pub fn conserved(series: Series) {
    let Some(report) = nested(series) else { return };
    let run = only(&report);
    let vcpus = sum_of(run, "vcpus", "ready_ns");
    for (table, column) in [("vms", "ready_ns"), ("hosts", "vm_ready_ns")] {
        assert_eq!(sum_of(run, table, column), vcpus, "{table}");
    }
    let (mut ended, mut switches) = (0, 0);
    for row in run.rows("vcpus") {
        ended += int(&row["ready_hist"], "total");
        switches += int(row, "switches");
    }
    println!("{vcpus} ns of ready; {ended} waits ended, {switches} switches");
    // Whoever is switched in has waited; a wait from before the registration
    // is in no histogram.
    assert!(
        ended > 500 && (0..=4).contains(&(switches - ended)),
        "{ended}"
    );
    for (table, columns) in [
        (
            "hosts",
            ["clock_skews", "spool_dropped_rows", "unregistered"].as_slice(),
        ),
        ("host_nets", &["tap_drops_lost"]),
        (
            "block_drops",
            &["open_full", "stats_full", "unseen", "vanished", "skipped"],
        ),
    ] {
        assert!(run.rows(table).count() >= 5, "{table}");
        for column in columns {
            assert_eq!(sum_of(run, table, column), 0, "{table}.{column}");
        }
    }
}

/// Whoever had the CPUs meanwhile makes up the ready, window by window.
pub fn blame(series: Series) {
    let Some(report) = nested(series) else { return };
    let run = only(&report);
    for vm in ["vm1", "vm2", "vm3", "vm4"] {
        let of = blame_of(run, vm);
        assert!((of - 1.0).abs() <= tolerance(&report, BLAME), "{of:.4}");
        let of_vm = run.rows("blame").filter(|r| r["vm_name"] == vm);
        let (vms, others): (Vec<_>, Vec<_>) = of_vm.partition(|r| r["culprit_kind"] == "vm");
        assert!(vms.iter().all(|r| r["culprit_name"] != vm));
        let by_vms = total(&vms, "blame_ns");
        let whole = by_vms + total(&others, "blame_ns");
        println!("{vm}: {:.3} of it by other VMs", share(by_vms, whole));
        // Nothing else spins.
        assert!(by_vms * 2 > whole, "{by_vms} of {whole}");
    }
}

/// A VM's blame as a share of its ready.
pub fn blame_of(run: &Run, vm: &str) -> f64 {
    let rows = run.rows("blame").filter(|r| r["vm_name"] == vm);
    let blamed: Vec<_> = rows.filter(|r| r["culprit_kind"] != "throttle").collect();
    let ready: Vec<_> = run.rows("vms").filter(|r| r["vm_name"] == vm).collect();
    let of = share(total(&blamed, "blame_ns"), total(&ready, "ready_ns"));
    println!("{vm}: blame is {of:.4} of ready");
    of
}

fn cpus(report: &Report) -> Vec<CpuSeries> {
    let cpus: Vec<CpuSeries> = report.truth("cpus").unwrap();
    assert_eq!(cpus.len(), 2);
    cpus
}

fn sum_of(run: &Run, table: &str, column: &str) -> i64 {
    total(&run.rows(table).collect::<Vec<_>>(), column)
}

fn nanoseconds(begin_us: i64, end_us: i64) -> f64 {
    f64::from(i32::try_from(end_us - begin_us).unwrap()) * 1e3
}

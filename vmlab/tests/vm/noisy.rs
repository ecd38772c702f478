//! Neighbours that are noisy in turn, and a burst that a mean would hide.

use std::sync::Arc;

use headroom_vmlab::message::{Neighbours, Series as Truth};
use headroom_vmlab::{Report, Run, Scenario, Series};
use serde_json::Value;

use super::host;
use super::rows::{Window, int, only, share, sum, tolerance, total, vcpu, within};

const VICTIM: &str = "vm1";
/// Of a window's blame against its ready.
const BLAME: f64 = 0.02;
/// What is about 0: interrupts and the kernel's own threads.
const CALM: f64 = 0.05;
/// Two that spin share a CPU.
const BURST: f64 = 0.45;
/// Of a quantile against schedstat's, of a window.
const AGREEMENT: f64 = 0.03;

fn noisy(series: Series) -> Option<Arc<Report>> {
    crate::run(series, Scenario::Noisy)
}

/// Each time another one is noisy it is named first, as the one that ran most
/// by schedstat, and the blame makes up the ready.
pub fn named_first(series: Series) {
    let Some(report) = noisy(series) else { return };
    let run = only(&report);
    let truths: Vec<Truth> = report.truth("series").unwrap();
    let neighbours: Neighbours = report.truth("neighbours").unwrap();
    let victim = vcpu(run, truths[0].tid);
    assert_eq!(neighbours.rounds.len(), 4);
    for round in &neighbours.rounds {
        let windows = inside(&victim, round.span_us);
        assert!(!windows.is_empty(), "no whole window of {round:?}");
        for window in windows {
            assert_eq!(ran_most(&truths[1..], window), round.vm);
            culprit(run, window, &round.vm, tolerance(&report, BLAME));
        }
    }
    let of = host::blame_of(run, VICTIM);
    assert!((of - 1.0).abs() <= tolerance(&report, BLAME), "{of:.4}");
}

/// Who of the neighbours had most of the CPU in a window.
fn ran_most<'a>(neighbours: &'a [Truth], window: &Window<'_>) -> &'a str {
    let ran = |truth: &Truth| {
        let begin = window.end_us - window.window_ns / 1000;
        truth.between(begin, window.end_us).unwrap().0
    };
    let most = neighbours.iter().max_by(|a, b| ran(a).total_cmp(&ran(b)));
    &most.unwrap().vm
}

fn culprit(run: &Run, window: &Window<'_>, noisy: &str, tolerance: f64) {
    let of_window = |r: &&Value| r["vm_name"] == VICTIM && r["ts"] == window.row["ts"];
    let rows = run.rows("blame").filter(of_window);
    let rows: Vec<_> = rows.filter(|r| r["culprit_kind"] != "throttle").collect();
    let first = rows.first().unwrap();
    let (blamed, ready) = (total(&rows, "blame_ns"), int(window.row, "ready_ns"));
    let of = share(blamed, ready);
    println!(
        "{noisy} noisy: ready {:.3}, blame {of:.4} of it, {} by {}",
        window.row["ready_ratio"], first["share"], first["culprit_name"]
    );
    assert_eq!(
        (&first["culprit_kind"], &first["culprit_name"]),
        (&"vm".into(), &noisy.into()),
        "{rows:#?}"
    );
    assert!((of - 1.0).abs() <= tolerance, "{blamed} of {ready}");
}

/// A neighbour that is there for one window in twenty: the median says nothing
/// of it, the 99th percentile does.
pub fn tail(series: Series) {
    let Some(report) = noisy(series) else { return };
    let truth = &report.truth::<Vec<Truth>>("series").unwrap()[0];
    let neighbours: Neighbours = report.truth("neighbours").unwrap();
    let windows = vcpu(only(&report), truth.tid);
    let (windows, (begin, end)) = within(&windows, neighbours.tail_us);
    let (from, to) = neighbours.burst_us;
    println!("duty {:.3}", share(to - from, end - begin));
    let told = quantiles(&windows, |w| w.row["ready_ratio"].as_f64().unwrap());
    let by_schedstat = quantiles(&windows, |w| {
        let begin = w.end_us - w.window_ns / 1000;
        let (run, wait) = truth.between(begin, w.end_us).unwrap();
        wait / (run + wait)
    });
    let mean = share(sum(&windows, "ready_ns"), sum(&windows, "window_ns"));
    println!(
        "{} windows: mean {mean:.4}, p50 and p99 {told:.4?}, by schedstat {by_schedstat:.4?}",
        windows.len()
    );
    for (told, truth) in told.into_iter().zip(by_schedstat) {
        let apart = (told - truth).abs();
        assert!(apart <= tolerance(&report, AGREEMENT), "{told} {truth}");
    }
    assert!(told[0] <= tolerance(&report, CALM), "p50 {}", told[0]);
    assert!(told[1] >= BURST, "p99 {}", told[1]);
    assert!(mean < told[1] / 2.0);
}

/// The median and the 99th percentile, each one of the values.
fn quantiles(windows: &[Window<'_>], of: impl Fn(&Window<'_>) -> f64) -> [f64; 2] {
    let mut values: Vec<f64> = windows.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    // Nearest rank.
    [50, 99].map(|percent| values[(values.len() * percent).div_ceil(100) - 1])
}

/// Of CPUs that idle as well, and of threads that sleep.
pub fn capacity_and_switches(series: Series) {
    let Some(report) = noisy(series) else { return };
    host::capacity_of(&report);
    let of = host::switches_of(&report);
    println!("switches {of:.4} of those by status");
    assert!((of - 1.0).abs() <= tolerance(&report, 0.01), "{of:.4}");
}

fn inside<'a, 'b>(windows: &'b [Window<'a>], span_us: (i64, i64)) -> Vec<&'b Window<'a>> {
    let begin = |w: &Window<'_>| w.end_us - w.window_ns / 1000;
    let inside = |w: &&Window<'_>| begin(w) >= span_us.0 && w.end_us <= span_us.1;
    windows.iter().filter(inside).collect()
}

//! Ready of nested guests against theory and schedstat.

use headroom_vmlab::message::Series as Truth;
use headroom_vmlab::{Scenario, Series};

use super::rows::{families, only, share, sum, tolerance, vcpu, within_sure};

/// Four spinning vCPUs on two CPUs.
const THEORY: f64 = 0.5;
const TOLERANCE: f64 = 0.06;
/// What the agent and the recorder take besides on a machine that got no CPU
/// time at all from its host: seen, 0.10 more at a disturbance of 0.75.
const SLOW: f64 = 0.2;
/// Of schedstat's figure; 0.3 % is usual.
const AGREEMENT: f64 = 0.01;

#[expect(clippy::cast_precision_loss, reason = "ns of a minute")]
pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Nested) else {
        return;
    };
    let run = only(&report);
    families(run, "tp_btf", 1);
    let truths: Vec<Truth> = report.truth("series").unwrap();
    assert_eq!(truths.len(), 4);
    let tolerance = tolerance(&report, AGREEMENT);
    println!(
        "tolerance {tolerance:.4} at a disturbance of {:.3}",
        report.disturbance
    );
    let mut mean = 0.0;
    for truth in &truths {
        let windows = vcpu(run, truth.tid);
        let (windows, (begin, end)) = within_sure(&windows, truth);
        let (run_ns, wait_ns) = truth.between(begin, end).unwrap();
        let (ready, ran) = (sum(&windows, "ready_ns"), sum(&windows, "run_ns"));
        let of_window = share(ready, sum(&windows, "window_ns"));
        let (a, b) = (ready as f64 / wait_ns, ran as f64 / run_ns);
        println!(
            "{}: {} windows, ready {:.1} %, of schedstat: ready {a:.4}, run {b:.4}",
            truth.vm,
            windows.len(),
            of_window * 100.0
        );
        assert!(
            (a - 1.0).abs() <= tolerance,
            "{}: ready {a:.4} of schedstat",
            truth.vm
        );
        assert!(
            (b - 1.0).abs() <= tolerance,
            "{}: run {b:.4} of schedstat",
            truth.vm
        );
        mean += of_window / 4.0;
    }
    let most = THEORY + TOLERANCE + SLOW * report.disturbance;
    println!("mean ready {mean:.3}");
    assert!(mean >= THEORY - TOLERANCE && mean <= most, "{mean:.3}");
}

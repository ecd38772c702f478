//! A CPU quota's throttling is told apart from ready.

use headroom_vmlab::message::{Series as Truth, Throttling};
use headroom_vmlab::{Scenario, Series};

use super::rows::{only, share, sum, vcpu, within};

pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Quota) else {
        return;
    };
    let run = only(&report);
    let throttling: Throttling = report.truth("throttling").unwrap();
    let schedstat: Vec<Truth> = report.truth("series").unwrap();
    assert!(throttling.throttled_periods > 40, "{throttling:?}");
    let span_us = throttling.span_us;
    let throttled_ns = i64::try_from(throttling.throttled_ns).unwrap();
    let truth = share(throttled_ns, (span_us.1 - span_us.0) * 1000);

    let windows = vcpu(run, throttling.tid);
    let (windows, (begin, end)) = within(&windows, span_us);
    let length = sum(&windows, "window_ns");
    let of = |column| share(sum(&windows, column), length);
    let (ran, _) = schedstat[0].between(begin, end).unwrap();
    let ran = ran / 1e3 / f64::from(i32::try_from(end - begin).unwrap());
    println!("throttled {truth:.3}, ran {ran:.3} of the time");
    assert!(
        (of("run_ns") - ran).abs() < 0.02,
        "run {:.3}, truth {ran:.3}",
        of("run_ns")
    );
    // cpu.stat is brought up to date when a throttling ends, 50 ms at most.
    let throttled = of("throttled_ns");
    assert!(
        (throttled - truth).abs() < 0.03,
        "throttled {throttled:.3}, truth {truth:.3}"
    );
    assert!(of("ready_ns") < 0.1, "ready {:.3}", of("ready_ns"));
}

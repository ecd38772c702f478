//! A disk that takes 20 ms for each request.

use headroom_vmlab::message::DiskReads;
use headroom_vmlab::{Scenario, Series};

use super::rows::only;

pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Block) else {
        return;
    };
    let run = only(&report);
    let truth: DiskReads = report.truth("disk").unwrap();
    println!("{truth:?}");
    // The truths agree with each other: one guest read is one request.
    assert!(truth.guest_reads > 20, "{truth:?}");
    assert_eq!(truth.issued, truth.guest_reads);
    assert_eq!(truth.completed, truth.guest_reads);
    assert_eq!(truth.reads, truth.guest_reads);
    let latency_ns = truth.read_ms * 1_000_000 / truth.reads;
    // TCG adds 10 to 20 ms to a request, and more on a busy machine.
    assert!(latency_ns >= truth.latency_ns * 95 / 100, "{latency_ns} ns");
    assert!(run.rows("vms").count() >= 5);
}

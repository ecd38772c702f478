//! Forced moves between nodes are counted, each once.

use headroom_vmlab::message::Moves;
use headroom_vmlab::{Scenario, Series};

use super::rows::{only, sum, vcpu};

pub fn check(series: Series, scenario: Scenario) {
    let Some(report) = crate::run(series, scenario) else {
        return;
    };
    let run = only(&report);
    let truth: Moves = report.truth("moves").unwrap();
    let nodes = if scenario == Scenario::Numa4 { 4 } else { 2 };
    assert_eq!(truth.nodes.len(), nodes);
    assert_eq!(truth.moves, 20);
    assert_eq!(truth.traced, truth.moves, "the kernel moved it too");
    let windows = vcpu(run, truth.tid);
    assert_eq!(sum(&windows, "node_migrations"), 20);
    assert_eq!(sum(&windows, "cpu_migrations"), 20);
    let vms: i64 = run
        .rows("vms")
        .filter_map(|r| r["node_migrations"].as_i64())
        .sum();
    assert_eq!(vms, 20);
    assert!(run.rows("hosts").all(|r| r["numa_nodes"] == nodes));
}

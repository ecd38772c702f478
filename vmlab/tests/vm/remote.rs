//! Memory on another node than the vCPU is remote; beside it, it is not.

use headroom_vmlab::message::Stay;
use headroom_vmlab::{Scenario, Series};
use serde_json::Value;

use super::rows::{int, only};

/// What the VM was told to touch.
const MEMORY: i64 = 96 << 20;
/// A row's time is the nominal end of its window; the agent may read later
/// than that, so a window must end this long before the stay does.
const LATE_US: i64 = 1_500_000;

pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Remote) else {
        return;
    };
    let run = only(&report);
    let stays: Vec<Stay> = report.truth("stays").unwrap();
    println!("{stays:?}");
    let nodes: Vec<_> = stays.iter().map(|s| s.node).collect();
    assert_eq!(nodes, [1, 0]);
    for stay in &stays {
        // The truth itself: all of the memory is on node 0 throughout.
        let here = i64::try_from(stay.memory[0]).unwrap();
        let there = i64::try_from(stay.memory[1]).unwrap();
        assert!(here >= MEMORY && there * 20 < here, "{stay:?}");
        let rows: Vec<_> = run.rows("vm_numa").filter(|r| within(r, stay)).collect();
        assert!(rows.len() >= 2, "{} whole windows", rows.len());
        for row in rows {
            of_vm(row, stay, here + there);
        }
        let rows = run.rows("vm_numa_nodes");
        for row in rows.filter(|r| within(r, stay)) {
            of_node(row, stay);
        }
    }
}

fn within(row: &Value, stay: &Stay) -> bool {
    let (end_us, ns) = (int(row, "ts"), int(row, "window_ns"));
    end_us - ns.max(1_000_000_000) / 1000 >= stay.span_us.0 && end_us + LATE_US <= stay.span_us.1
}

fn of_vm(row: &Value, stay: &Stay, memory: i64) {
    assert_eq!((&row["vm_name"], int(row, "nodes")), (&"vm1".into(), 2));
    assert_eq!(
        (&row["source"], int(row, "vcpu_nodes")),
        (&"cgroup".into(), 1)
    );
    // The kernel batches what it adds to the cgroup's figures.
    let told = int(row, "memory_bytes");
    assert!((told - memory).abs() < memory / 10, "{told} of {memory}");
    let share = row["remote_share"].as_f64().unwrap();
    let elsewhere = int(row, "elsewhere_bytes");
    println!("vCPU on node {}: remote_share {share:.4}", stay.node);
    match stay.node {
        1 => assert!(share >= 0.9 && elsewhere >= MEMORY * 9 / 10, "{row}"),
        _ => assert!(share <= 0.1 && elsewhere <= MEMORY / 10, "{row}"),
    }
}

fn of_node(row: &Value, stay: &Stay) {
    let (node, bytes) = (int(row, "node"), int(row, "bytes"));
    match node {
        0 => assert!(bytes >= MEMORY * 9 / 10, "{row}"),
        _ => assert!(bytes <= MEMORY / 10, "{row}"),
    }
    // It spun there, and all that it ran was charged to that node.
    let ran = usize::try_from(node) == Ok(stay.node);
    assert_eq!(int(row, "vcpu_time_ns") > 0, ran, "{row}");
    let share = row["vcpu_share"].as_f64().unwrap();
    assert_eq!(share > 0.99, ran, "{row}");
}

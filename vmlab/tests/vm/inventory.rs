//! What there is: the machine's CPUs and nodes, and whose its VMs are.

use std::collections::BTreeSet;

use headroom_vmlab::message::Cpu;
use headroom_vmlab::{Report, Run, Scenario, Series};
use serde_json::Value;

use super::rows::{ended_well, int, only, total};

/// A machine as the lab builds it.
struct Shape {
    cpus: usize,
    nodes: usize,
    threads: usize,
}

/// Sockets, nodes, threads of a core and names, on machines that differ in
/// them; a thread of two is less than a core of its own.
pub fn topology(series: Series) {
    let shape = |cpus, nodes, threads| Shape {
        cpus,
        nodes,
        threads,
    };
    let mut of_a_thread = Vec::new();
    for (scenario, shape) in [
        (Scenario::Load, shape(2, 2, 1)),
        (Scenario::Numa4, shape(4, 4, 1)),
        (Scenario::Remote, shape(4, 2, 2)),
    ] {
        let Some(report) = crate::run(series, scenario) else {
            return;
        };
        let truth: Vec<Cpu> = report.truth("topology").unwrap();
        is_built(&truth, &shape);
        let capacity = cpus(&report, &truth, &shape);
        nodes(&report.runs[0], &truth, &shape);
        println!(
            "{}: a thread of {} is {capacity:.4}",
            scenario.name(),
            shape.threads
        );
        of_a_thread.push(capacity);
    }
    let [two_nodes, four_nodes, half_cores] = of_a_thread[..] else {
        unreachable!()
    };
    assert!(half_cores < two_nodes * 0.9, "{half_cores} of {two_nodes}");
    // As many MHz as TCG says it has, which is not the same each time.
    assert!((four_nodes / two_nodes - 1.0).abs() < 0.1);
}

/// The kernel sees the machine that was meant.
fn is_built(truth: &[Cpu], shape: &Shape) {
    assert_eq!(truth.len(), shape.cpus, "{truth:?}");
    let count = |of: fn(&Cpu) -> String| truth.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!(count(|c| c.socket.to_string()), shape.nodes, "{truth:?}");
    assert_eq!(count(|c| c.node.to_string()), shape.nodes, "{truth:?}");
    let cores = shape.cpus / shape.threads;
    assert_eq!(count(|c| c.siblings.clone()), cores, "{truth:?}");
}

/// Each CPU's row; gives the mean capacity.
fn cpus(report: &Report, truth: &[Cpu], shape: &Shape) -> f64 {
    let rows: Vec<_> = report.runs[0].rows("topology").collect();
    assert_eq!(rows.len(), truth.len(), "{rows:?}");
    let mut capacity = 0.0;
    for (row, cpu) in rows.iter().zip(truth) {
        for (column, value) in [
            ("cpu", cpu.cpu),
            ("online", 1),
            ("socket", cpu.socket),
            ("node", cpu.node),
            ("smt", shape.threads),
        ] {
            assert_eq!(row[column], value, "{column} of {row}");
        }
        assert_eq!(row["model"], cpu.model.as_str());
        let siblings = numbers(row["smt_siblings"].as_str().unwrap());
        assert_eq!(siblings, numbers(&cpu.siblings), "{row}");
        assert_eq!(row["core"], siblings[0], "{row}");
        assert!(siblings.contains(&cpu.cpu));
        let smt = row["capacity_source"].as_str().unwrap().contains("smt");
        assert_eq!(smt, shape.threads > 1, "{row}");
        capacity += row["capacity"].as_f64().unwrap();
    }
    capacity / f64::from(u32::try_from(shape.cpus).unwrap())
}

/// Numbers of a list such as `0-1` or `0,1`.
fn numbers(list: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().unwrap()..=last.parse().unwrap());
    }
    numbers
}

fn nodes(run: &Run, truth: &[Cpu], shape: &Shape) {
    let rows: Vec<_> = run.rows("topology_nodes").collect();
    assert_eq!(rows.len(), shape.nodes, "{rows:?}");
    for (node, row) in rows.iter().enumerate() {
        assert_eq!(row["node"], node);
        let cpus = truth.iter().filter(|c| c.node == node).map(|c| c.cpu);
        let told = numbers(row["cpus"].as_str().unwrap());
        assert_eq!(told, cpus.collect::<Vec<_>>(), "{row}");
        // As the lab's own SLIT has it.
        let distances = (0..shape.nodes).map(|n| if n == node { "10" } else { "21" });
        let distances = distances.collect::<Vec<_>>().join(",");
        assert_eq!(row["distances"], distances.as_str());
    }
    let hosts: Vec<_> = run.rows("hosts").collect();
    let memory = total(&rows, "memory_bytes");
    assert_eq!(memory, int(hosts[0], "memory_bytes"));
    assert!(hosts.iter().all(|r| r["threads"] == shape.cpus));
}

/// A real guest by what it was started with, and by the labels file; all rows
/// of all tables are of a VM that is known so.
pub fn vms(series: Series) {
    let Some(report) = crate::run(series, Scenario::Load) else {
        return;
    };
    for run in &report.runs {
        ended_well(run);
        let row = run.rows("inventory").last().unwrap();
        is_the_guest(row);
        grouped(run, row);
    }
    let Some(report) = crate::run(series, Scenario::Remote) else {
        return;
    };
    let truth: Vec<Cpu> = report.truth("topology").unwrap();
    let home = truth.iter().find(|c| c.node == 0).unwrap().cpu;
    let last = only(&report).rows("inventory").last().unwrap();
    println!("pinned as {}", last["pinning"]);
    assert_eq!(last["pinning"], format!("0: {home}").as_str());
}

fn is_the_guest(row: &Value) {
    for (column, value) in [
        ("vm_name", "vm1"),
        ("platform", "libvirt"),
        ("uuid", "00000000-0000-4000-8000-000000000001"),
        ("machine", "pc"),
        ("cgroup", r"/machine.slice/machine-qemu\x2d1\x2dvm1.scope"),
        ("pinning", "0: 0-1"),
        ("tenant", "acme"),
        ("project", "shop"),
        ("vm_type", "small"),
        ("region", "north"),
    ] {
        assert_eq!(row[column], value, "{column} of {row}");
    }
    let numbers = (int(row, "vcpus"), int(row, "memory_bytes"));
    assert_eq!(numbers, (1, 16 << 20));
}

/// By tenant, project, VM type and region.
fn grouped(run: &Run, row: &Value) {
    let with_vm = run.all().iter().filter(|r| !r["vm_id"].is_null());
    let with_vm: Vec<_> = with_vm.collect();
    let tables: BTreeSet<_> = with_vm.iter().map(|r| r["table"].as_str()).collect();
    println!("{} rows of {tables:?}", with_vm.len());
    assert!(tables.len() >= 5, "{tables:?}");
    assert!(with_vm.iter().all(|r| r["vm_id"] == row["vm_id"]));
    for vm in run.rows("vms") {
        for column in ["tenant", "project", "vm_type"] {
            assert_eq!(vm[column], row[column], "{vm}");
        }
    }
}

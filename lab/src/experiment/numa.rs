//! `headroom lab numa`: a vCPU is moved between NUMA nodes a known number of
//! times.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use super::{Common, add_seen};
use crate::guest::Spec;
use crate::measure::Meter;
use crate::report::{Format, Report, Table};
use crate::stage::Stage;
use crate::terminal::{complain, say};
use crate::truth::{self, VCPUS};

const NODES: &str = "/sys/devices/system/node";
/// Tables of headroom that tell of nodes.
const TABLES: &[&str] = &["vm_numa"];
/// Between two moves: many ticks of the scheduler, so that each is made.
const STAY: Duration = Duration::from_millis(100);

/// Flags of `headroom lab numa`.
#[derive(Args, Clone, Debug)]
pub struct NumaArgs {
    /// How often the vCPU is moved to another node
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    moves: u32,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &[(&str, &str)] = &[
    ("vm", "guest"),
    ("moves", "moves made"),
    ("node_migrations", "node migrations: headroom"),
    ("cpu_migrations", "CPU migrations"),
];

/// Runs it and prints its figures; on a host with one node says so.
///
/// # Errors
/// Not root, or KVM or QEMU is missing.
pub async fn run(args: &NumaArgs) -> anyhow::Result<()> {
    let nodes = nodes()?;
    if nodes.len() < 2 {
        match args.common.output {
            Format::Table => say("n/a: one NUMA node"),
            Format::Json => {
                Report {
                    tables: vec![Table::new("numa", COLUMNS)],
                    notes: vec!["n/a: one NUMA node".to_owned()],
                    ..Report::default()
                }
                .print(Format::Json);
            }
        }
        return Ok(());
    }
    let stage = Stage::of_root("numa", args.common.weight)?;
    let report = report(&stage, args, &nodes).await?;
    // A closed pipe ends the process while it prints: the stage goes before.
    drop(stage);
    report.print(args.common.output);
    Ok(())
}

async fn report(stage: &Stage, args: &NumaArgs, nodes: &[Vec<usize>]) -> anyhow::Result<Report> {
    let mut meter = Meter::attach();
    let guest = stage.guest(&Spec {
        load: 100,
        ..Spec::new("wanderer")
    })?;
    let tid = *truth::threads(guest.pid(), VCPUS)?
        .first()
        .context("the guest has no vCPU thread")?;
    let [home, away, ..] = nodes else {
        bail!("fewer than two NUMA nodes");
    };
    pin(tid, home)?;
    tokio::time::sleep(STAY).await;
    meter.cut();
    let mut made = 0;
    for n in 0..args.moves {
        let target = if n % 2 == 0 { away } else { home };
        pin(tid, target)?;
        meter.pass(STAY).await;
        if runs_on(guest.pid(), tid).is_some_and(|cpu| target.contains(&cpu)) {
            made += 1;
        } else {
            complain("headroom: a move was not made within its time");
        }
    }
    let window = meter.cut();
    let vm = window.vms.iter().find(|vm| vm.vm_name == guest.name());
    let mut table = Table::new("numa", COLUMNS);
    table.push(vec![
        guest.name().into(),
        made.into(),
        vm.map_or(Value::Null, |vm| vm.node_migrations.into()),
        vm.map_or(Value::Null, |vm| vm.cpu_migrations.into()),
    ]);
    let mut report = Report {
        tables: vec![table],
        notes: vec![meter.note()],
        ..Report::default()
    };
    add_seen(&mut report, &window, TABLES, guest.name());
    Ok(report)
}

/// CPUs of each node that has some.
fn nodes() -> anyhow::Result<Vec<Vec<usize>>> {
    let online = fs::read_to_string(format!("{NODES}/online")).unwrap_or_else(|_| "0".to_owned());
    let mut nodes = Vec::new();
    for node in parse_list(&online).with_context(|| format!("nodes {online:?}"))? {
        let Ok(text) = fs::read_to_string(format!("{NODES}/node{node}/cpulist")) else {
            continue;
        };
        let cpus = parse_list(&text).with_context(|| format!("CPUs {text:?} of node {node}"))?;
        if !cpus.is_empty() {
            nodes.push(cpus);
        }
    }
    Ok(nodes)
}

/// Numbers of a kernel list such as `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(from.parse::<usize>().ok()?..=to.parse().ok()?);
    }
    Some(numbers)
}

fn pin(tid: u32, cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    let pid = Pid::from_raw(tid.cast_signed()).context("no thread")?;
    sched_setaffinity(Some(pid), &set).with_context(|| format!("pin thread {tid} to {cpus:?}"))
}

/// CPU where a thread ran last: field 39 of its stat (proc_pid_stat(5)).
fn runs_on(pid: u32, tid: u32) -> Option<usize> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // The name, field 2, may hold spaces; it ends at the last parenthesis.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(39 - 3)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists() {
        assert_eq!(parse_list("0\n"), Some(vec![0]));
        assert_eq!(parse_list("0-2,8,10-11"), Some(vec![0, 1, 2, 8, 10, 11]));
        assert_eq!(parse_list("\n"), Some(vec![]));
        assert_eq!(parse_list("0-x"), None);
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_pinned() {
        std::thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            let tid = u32::try_from(tid).expect("a tid");
            pin(tid, &[0]).expect("pin");
            assert_eq!(runs_on(std::process::id(), tid), Some(0));
        })
        .join()
        .expect("pinned");
    }

    #[test]
    fn this_host_has_a_node_with_cpus() {
        assert!(!nodes().expect("nodes")[0].is_empty());
    }
}

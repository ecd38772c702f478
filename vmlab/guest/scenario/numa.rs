//! A vCPU's thread is moved from node to node.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use headroom_vmlab::message::Moves;

use super::stop;
use crate::agent::Agent;
use crate::task::put_on;
use crate::trace::Counter;
use crate::vm::Vm;
use crate::wire::Wire;

const MOVES: u64 = 20;
/// Longer than a slice of the scheduler, so that a move is no transit.
const STAY: Duration = Duration::from_millis(100);

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    let nodes = nodes()?;
    switch_balancing_off()?;
    let vms = Vm::several(1, 100)?;
    let tid = vms[0].tid;
    put_on(tid, nodes[0][0])?;
    let agent = Agent::start("auto", &[tid])?;
    let counter = Counter::start("sched/sched_migrate_task", "pid", &format!("pid == {tid}"))?;
    let mut moves = 0;
    while moves < MOVES {
        moves += 1;
        let node = usize::try_from(moves)? % nodes.len();
        put_on(tid, nodes[node][0])?;
        std::thread::sleep(STAY);
    }
    let traced = counter.read()?;
    stop(agent, wire)?;
    let truth = Moves {
        tid,
        nodes,
        moves,
        traced,
    };
    wire.truth("moves", &truth)
}

/// The balancer would move threads and memory by its own lights.
pub(super) fn switch_balancing_off() -> anyhow::Result<()> {
    fs::write("/proc/sys/kernel/numa_balancing", "0").context("switch NUMA balancing off")
}

/// CPUs of each node.
pub(super) fn nodes() -> anyhow::Result<Vec<Vec<usize>>> {
    let mut nodes = Vec::new();
    loop {
        let path = format!("/sys/devices/system/node/node{}/cpulist", nodes.len());
        if !Path::new(&path).exists() {
            return Ok(nodes);
        }
        nodes.push(cpus(fs::read_to_string(&path)?.trim())?);
    }
}

/// CPUs of a list such as `0-2,7`.
fn cpus(list: &str) -> anyhow::Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_lists() {
        assert_eq!(super::cpus("0-2,7").unwrap(), [0, 1, 2, 7]);
        assert_eq!(super::cpus("3").unwrap(), [3]);
        assert!(super::cpus("x").is_err());
    }
}

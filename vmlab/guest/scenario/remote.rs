//! A VM's memory lies on one node; its vCPU runs on the other, then beside it.

use std::fs;

use anyhow::{Context as _, ensure};
use headroom_vmlab::message::Stay;

use super::numa::{nodes, switch_balancing_off};
use super::stop;
use crate::agent::Agent;
use crate::standin::StandIn;
use crate::task::{now_us, pin, processor};
use crate::wire::Wire;

/// Node of the memory: where its one thread was when it touched it first.
const HOME: usize = 0;
const AWAY: usize = 1;
/// In windows of 1 s: some whole ones, whatever the first and last are.
const ORDER: &str = "spin 7";

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    let nodes = nodes()?;
    ensure!(nodes.len() == 2, "{} nodes", nodes.len());
    switch_balancing_off()?;
    let mut vm = StandIn::start(1)?;
    let tid = vm.vcpu()?;
    pin(tid, nodes[HOME][0])?;
    // It is in its own cgroup by now, so that all of it is charged there.
    ensure!(vm.order("grow 96")?, "killed");
    let agent = Agent::start("auto", &[tid])?;
    let mut stays = Vec::new();
    for node in [AWAY, HOME] {
        pin(tid, nodes[node][0])?;
        let begin = now_us();
        ensure!(vm.order(ORDER)?, "killed");
        let span_us = (begin, now_us());
        let cpu = processor(tid)?;
        ensure!(cpu == nodes[node][0], "it ran on CPU {cpu}");
        stays.push(Stay {
            node,
            span_us,
            memory: memory(vm.pid(), nodes.len())?,
        });
    }
    stop(agent, wire)?;
    wire.truth("stays", &stays)
}

/// Anonymous memory of a process by node, bytes: `N0=12 N1=3
/// kernelpagesize_kB=4` in lines with `anon=` (fs/proc/task_mmu.c).
fn memory(pid: u32, nodes: usize) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/numa_maps"))?;
    let mut sums = vec![0; nodes];
    for line in text.lines().filter(|l| l.contains(" anon=")) {
        let field = |name: &str| {
            let mut values = line.split(' ').filter_map(|f| f.split_once('='));
            let (_, value) = values.find(|(n, _)| *n == name)?;
            value.parse::<u64>().ok()
        };
        let page = field("kernelpagesize_kB").context("no size of pages")? << 10;
        for (node, sum) in sums.iter_mut().enumerate() {
            *sum += field(&format!("N{node}")).unwrap_or(0) * page;
        }
    }
    Ok(sums)
}

//! A VM's memory is squeezed harder and harder.

use std::path::Path;

use headroom_vmlab::message::{Figures, Phase, Squeeze};

use super::{sleep, stop};
use crate::agent::Agent;
use crate::cgroup::Scope;
use crate::figures;
use crate::init::busybox;
use crate::standin::StandIn;
use crate::task::now_us;
use crate::wire::Wire;

const SWAP: &str = "/dev/vdb";

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    busybox(&["mkswap", SWAP])?;
    busybox(&["swapon", SWAP])?;
    let mut vm = StandIn::start(1)?;
    let agent = Agent::start("auto", &[vm.vcpu()?])?;
    // Each phase in windows of its own.
    sleep(2);
    let mut phases = Vec::new();
    // Clean page cache beyond the limit, and no swap: only reclaim.
    set(
        &vm.scope,
        &[("memory.swap.max", "0"), ("memory.high", "32M")],
    )?;
    phases.push(phase("reclaim", &mut vm, &["read /dev/vda 96"])?);
    sleep(2);
    // Half as much again as fits, walked over and over.
    set(&vm.scope, &[("memory.swap.max", "max")])?;
    phases.push(phase("swap", &mut vm, &["grow 48", "walk"])?);
    sleep(2);
    // Nowhere left to go.
    set(
        &vm.scope,
        &[
            ("memory.high", "max"),
            ("memory.max", "32M"),
            ("memory.swap.max", "32M"),
        ],
    )?;
    phases.push(phase("oom", &mut vm, &["grow 96"])?);
    sleep(2);
    stop(agent, wire)?;
    let pid = vm.pid();
    wire.truth("squeeze", &Squeeze { pid, phases })
}

fn set(scope: &Scope, files: &[(&str, &str)]) -> anyhow::Result<()> {
    files
        .iter()
        .try_for_each(|(file, value)| scope.set(file, value))
}

struct Reading {
    events: Figures,
    stat: Figures,
    vmstat: Figures,
    pressure: Figures,
}

fn read(scope: &Scope) -> anyhow::Result<Reading> {
    Ok(Reading {
        events: figures::read(&scope.file("memory.events"))?,
        stat: figures::read(&scope.file("memory.stat"))?,
        vmstat: figures::read(Path::new("/proc/vmstat"))?,
        pressure: figures::pressure(&scope.file("memory.pressure"))?,
    })
}

/// Gives the orders in turn; ends when they are done or the VM was killed.
fn phase(name: &str, vm: &mut StandIn, orders: &[&str]) -> anyhow::Result<Phase> {
    let (before, begin) = (read(&vm.scope)?, now_us());
    let mut killed = false;
    for order in orders {
        killed = !vm.order(order)?;
        if killed {
            break;
        }
    }
    let (now, end) = (read(&vm.scope)?, now_us());
    Ok(Phase {
        name: name.to_owned(),
        span_us: (begin, end),
        killed,
        events: figures::since(&now.events, &before.events),
        stat: figures::since(&now.stat, &before.stat),
        vmstat: figures::since(&now.vmstat, &before.vmstat),
        pressure: figures::since(&now.pressure, &before.pressure),
    })
}

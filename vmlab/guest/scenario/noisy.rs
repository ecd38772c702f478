//! A victim and three neighbours on one CPU: another one is noisy each time,
//! then one of them for one window in twenty.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headroom_vmlab::message::{Neighbours, Round};
use rustix::process::Signal;

use super::stop;
use crate::agent::Agent;
use crate::recorder::Recorder;
use crate::task::{now_us, pin};
use crate::vm::Vm;
use crate::wire::Wire;

/// Everything but the vCPUs: this process, the agent, QEMU's other threads.
const HOST_CPU: usize = 0;
const GUEST_CPU: usize = 1;

/// Percent of a CPU of the neighbours that are not noisy.
const QUIET: u8 = 3;
/// Who is noisy: places among the VMs, the victim's being 0.
const ORDER: [usize; 4] = [2, 3, 1, 2];
/// Windows without a burst before it and again after it.
const CALM: u64 = 9;
/// A burst that begins so long before a window does fills all of that window.
const AHEAD: Duration = Duration::from_millis(100);

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    pin(std::process::id(), HOST_CPU)?;
    let mut vms = Vm::several(4, 100)?;
    for vm in &vms {
        pin(vm.tid, GUEST_CPU)?;
    }
    let neighbours = &vms[1..];
    for vm in neighbours {
        vm.set_load(QUIET)?;
    }
    let tids: Vec<_> = vms.iter().map(|vm| vm.tid).collect();
    let mut agent = Agent::start("auto", &tids)?;
    let recorder = Recorder::start(vms.iter().map(|vm| (vm.name.clone(), vm.tid)));
    let mut rounds = Vec::new();
    for noisy in ORDER.map(|n| &vms[n]) {
        rounds.push(round(noisy, &mut agent)?);
    }
    // Even a guest without load wakes up a hundred times a second, which takes
    // 2 % of a CPU under TCG: only one that is stopped takes nothing.
    for vm in neighbours {
        vm.signal(Signal::STOP)?;
    }
    vms[1].set_load(100)?;
    agent.wait_for_windows(1)?;
    let begin = now_us();
    agent.wait_for_windows(CALM)?;
    let burst_us = burst(&vms[1], &mut agent)?;
    agent.wait_for_windows(CALM + 1)?;
    let tail_us = (begin, now_us());
    let record = recorder.stop()?;
    stop(agent, wire)?;
    vms.iter_mut().try_for_each(Vm::is_alive)?;
    let truth = Neighbours {
        rounds,
        tail_us,
        burst_us,
    };
    wire.truth("neighbours", &truth)?;
    wire.truth("series", &record.threads)?;
    wire.truth("cpus", &record.cpus)
}

/// Noisy for a whole window at least, and quiet again.
fn round(noisy: &Vm, agent: &mut Agent) -> anyhow::Result<Round> {
    let begin = now_us();
    noisy.set_load(100)?;
    // The first one to end has begun before.
    agent.wait_for_windows(2)?;
    let span_us = (begin, now_us());
    noisy.set_load(QUIET)?;
    Ok(Round {
        vm: noisy.name.clone(),
        span_us,
    })
}

/// Noisy for a whole window and next to nothing of the others.
fn burst(noisy: &Vm, agent: &mut Agent) -> anyhow::Result<(i64, i64)> {
    const SECOND: Duration = Duration::from_secs(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let into = Duration::from_nanos(now.subsec_nanos().into());
    std::thread::sleep((SECOND - AHEAD).saturating_sub(into));
    let begin = now_us();
    noisy.signal(Signal::CONT)?;
    agent.wait_for_windows(2)?;
    noisy.signal(Signal::STOP)?;
    Ok((begin, now_us()))
}

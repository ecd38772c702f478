//! Twice as many spinning vCPUs as CPUs.

use super::{sleep, stop};
use crate::agent::Agent;
use crate::recorder::Recorder;
use crate::vm::Vm;
use crate::wire::Wire;

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    let mut vms = Vm::several(4, 100)?;
    let tids: Vec<_> = vms.iter().map(|vm| vm.tid).collect();
    let agent = Agent::start("auto", &tids)?;
    let recorder = Recorder::start(vms.iter().map(|vm| (vm.name.clone(), vm.tid)));
    sleep(14);
    let record = recorder.stop()?;
    stop(agent, wire)?;
    vms.iter_mut().try_for_each(Vm::is_alive)?;
    wire.truth("series", &record.threads)?;
    wire.truth("cpus", &record.cpus)
}

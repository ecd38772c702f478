//! The agent with each kind of program.

use super::{sleep, stop};
use crate::agent::Agent;
use crate::vm::Vm;
use crate::wire::Wire;

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    let vms = Vm::several(1, 50)?;
    for attach in ["tp_btf", "raw_tp"] {
        let agent = Agent::start(attach, &[vms[0].tid])?;
        sleep(2);
        stop(agent, wire)?;
    }
    Ok(())
}

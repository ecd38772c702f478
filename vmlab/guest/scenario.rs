//! What is done, by scenario.

mod block;
mod load;
mod memory;
mod nested;
mod noisy;
mod numa;
mod quota;
mod remote;
mod scarce;

use std::time::Duration;

use headroom_vmlab::Scenario;
use headroom_vmlab::message::Message;

use crate::agent::Agent;
use crate::topology;
use crate::wire::Wire;

/// Carries out a scenario and tells its truths.
pub fn run(scenario: Scenario, wire: &mut Wire) -> anyhow::Result<()> {
    wire.truth("topology", &topology::read()?)?;
    match scenario {
        Scenario::Load => load::run(wire),
        Scenario::Nested => nested::run(wire),
        Scenario::Numa | Scenario::Numa4 => numa::run(wire),
        Scenario::Remote => remote::run(wire),
        Scenario::Quota => quota::run(wire),
        Scenario::Block => block::run(wire),
        Scenario::Memory => memory::run(wire),
        Scenario::Noisy => noisy::run(wire),
        Scenario::Scarce => scarce::run(wire),
    }
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn stop(agent: Agent, wire: &mut Wire) -> anyhow::Result<()> {
    wire.send(&Message::Agent(agent.stop()?))
}

//! A spinning guest that may run half of the time.

use headroom_vmlab::message::Throttling;

use super::{sleep, stop};
use crate::agent::Agent;
use crate::figures;
use crate::recorder::Recorder;
use crate::task::now_us;
use crate::vm::Vm;
use crate::wire::Wire;

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    let vms = Vm::several(1, 100)?;
    let vm = &vms[0];
    vm.scope.set("cpu.max", "50000 100000")?;
    let stat = vm.scope.file("cpu.stat");
    let agent = Agent::start("auto", &[vm.tid])?;
    let recorder = Recorder::start([(vm.name.clone(), vm.tid)]);
    let (begin_us, before) = (now_us(), figures::read(&stat)?);
    sleep(8);
    let change = figures::since(&figures::read(&stat)?, &before);
    let span_us = (begin_us, now_us());
    stop(agent, wire)?;
    let truth = Throttling {
        tid: vm.tid,
        span_us,
        periods: figures::count(&change, "nr_periods"),
        throttled_periods: figures::count(&change, "nr_throttled"),
        throttled_ns: figures::count(&change, "throttled_usec") * 1000,
    };
    wire.truth("throttling", &truth)?;
    wire.truth("series", &recorder.stop()?.threads)
}

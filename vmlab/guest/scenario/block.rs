//! A guest reads from a disk that takes 20 ms for each request.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use headroom_vmlab::message::DiskReads;

use super::{sleep, stop};
use crate::agent::Agent;
use crate::trace::Counter;
use crate::vm::{Device, Vm};
use crate::wire::Wire;

/// As the machine is built.
const LATENCY_NS: u64 = 20_000_000;

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    let mut vm = Vm::start(1, 10, Some(&Device::Disk("/dev/vda")))?;
    vm.wait_until_it_runs()?;
    let agent = Agent::start("auto", &[vm.tid])?;
    let device = fs::read_to_string("/sys/block/vda/dev")?.trim().to_owned();
    let number = trace_number(&device)?;
    let of = |event: &str| Counter::start(event, "dev", &format!("dev == {number}"));
    let (issued, completed) = (of("block/block_rq_issue")?, of("block/block_rq_complete")?);
    let (sectors, (reads, read_ms)) = (vm.sectors_read()?, diskstats()?);
    vm.read_disk(true)?;
    sleep(6);
    vm.read_disk(false)?;
    // The request in flight.
    std::thread::sleep(Duration::from_millis(500));
    let now = diskstats()?;
    let truth = DiskReads {
        device,
        latency_ns: LATENCY_NS,
        guest_reads: u64::from(vm.sectors_read()? - sectors),
        issued: issued.read()?,
        completed: completed.read()?,
        reads: now.0 - reads,
        read_ms: now.1 - read_ms,
    };
    stop(agent, wire)?;
    wire.truth("disk", &truth)
}

/// Reads and their time in ms.
fn diskstats() -> anyhow::Result<(u64, u64)> {
    let text = fs::read_to_string("/sys/block/vda/stat")?;
    let mut fields = text.split_whitespace();
    let mut field = |skip| fields.nth(skip).context("stat is short");
    Ok((field(0)?.parse()?, field(2)?.parse()?))
}

/// A device as tracepoints hold it: the kernel's own `dev_t`.
fn trace_number(device: &str) -> anyhow::Result<u32> {
    let (major, minor) = device.split_once(':').context("device")?;
    Ok(major.parse::<u32>()? << 20 | minor.parse::<u32>()?)
}

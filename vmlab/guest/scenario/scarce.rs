//! No room: a queue of a tap that nobody empties, then memory that is free in
//! single pages only.

use std::fs;
use std::io::{PipeReader, PipeWriter, Write as _, pipe};
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headroom_vmlab::message::{Figures, Flood, Fragmented};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use super::stop;
use crate::agent::Agent;
use crate::figures;
use crate::init::busybox;
use crate::standin::StandIn;
use crate::task::now_us;
use crate::trace::Counter;
use crate::vm::{Device, Vm};
use crate::wire::Wire;

const TAP: &str = "tap0";
const QUEUES: u32 = 4;
/// Network of RFC 2544, for tests of network devices.
const HERE: &str = "198.18.79.1";
/// Sent to all, so that no neighbour has to be known.
const ALL: &str = "198.18.79.255:9";
/// Four times what a tap's ring holds: its `tx_queue_len`, 1000.
const PACKETS: usize = 4000;

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";
/// Left for what runs: less, and the OOM killer comes.
const SPARE: i64 = 96 << 20;
const LEAST: i64 = 64 << 20;
/// The kernel adds pressure up every two seconds (kernel/sched/psi.c,
/// `PSI_FREQ`), whoever reads it in between.
const PRESSURE_IS_OLD: Duration = Duration::from_millis(2500);
const STALL_LIMIT: Duration = Duration::from_secs(120);

const PAGE: usize = 4096;
/// Pages that a pipe holds (`PIPE_DEF_BUFFERS`).
const PIPE: usize = 16;
/// Four for each 32 pages of all memory.
const FILES: u64 = 1 << 14;

pub(super) fn run(wire: &mut Wire) -> anyhow::Result<()> {
    // As hosts are tuned that want huge pages: each fault asks for one, and
    // compacts if need be.
    for file in ["enabled", "defrag"] {
        fs::write(Path::new(HUGE_PAGES).join(file), "always")?;
    }
    let tap = Device::Tap {
        name: TAP,
        queues: QUEUES,
    };
    let mut vm = Vm::start(1, 10, Some(&tap))?;
    vm.wait_until_it_runs()?;
    busybox(&["ip", "link", "set", "dev", TAP, "up"])?;
    busybox(&["ip", "addr", "add", &format!("{HERE}/24"), "dev", TAP])?;
    let mut hungry = StandIn::start(2)?;
    let tid = hungry.vcpu()?;
    let mut agent = Agent::start("auto", &[vm.tid, tid])?;
    let flood = flood(&vm, &mut agent)?;
    let pieces = fragment()?;
    agent.wait_for_windows(2)?;
    let fragmented = starve(&mut hungry, tid)?;
    drop(pieces);
    agent.wait_for_windows(2)?;
    stop(agent, wire)?;
    wire.truth("flood", &flood)?;
    wire.truth("fragmented", &fragmented)
}

/// Packets of one flow, which all go to one queue, while QEMU is stopped.
fn flood(vm: &Vm, agent: &mut Agent) -> anyhow::Result<Flood> {
    let socket = UdpSocket::bind((HERE, 0)).context("bind")?;
    socket.set_broadcast(true)?;
    vm.signal(Signal::STOP)?;
    agent.wait_for_windows(1)?;
    let filter = format!("name == \"{TAP}\"");
    let sent = Counter::start("net/net_dev_start_xmit", "queue_mapping", &filter)?;
    let before = dropped()?;
    for _ in 0..PACKETS {
        // What finds no room is dropped, which no sender hears of.
        socket.send_to(&[0; 64], ALL)?;
    }
    let flood = Flood {
        device: TAP.to_owned(),
        queues: QUEUES,
        sent: sent.by_key()?,
        dropped: dropped()? - before,
    };
    agent.wait_for_windows(2)?;
    vm.signal(Signal::CONT)?;
    Ok(flood)
}

/// The tap's own count, over all queues.
fn dropped() -> anyhow::Result<u64> {
    let path = format!("/sys/class/net/{TAP}/statistics/tx_dropped");
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// A pipe that is full: memory that the kernel can't move.
struct Full {
    writer: PipeWriter,
    _reader: PipeReader,
}

impl Full {
    fn empty() -> anyhow::Result<Self> {
        let (reader, writer) = pipe().context("open a pipe")?;
        Ok(Self {
            writer,
            _reader: reader,
        })
    }
}

/// Fills the memory with pipes, a page of one beside a page of another, and
/// takes each second one away again. Compaction can't move what is left, so
/// that it never makes a large page of it.
fn fragment() -> anyhow::Result<Vec<Full>> {
    let files = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    setrlimit(Resource::Nofile, files).context("allow many files")?;
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    while available()? > SPARE {
        let mut pair = [Full::empty()?, Full::empty()?];
        for _ in 0..PIPE {
            for pipe in &mut pair {
                pipe.writer.write_all(&[1; PAGE])?;
            }
        }
        let [keep, leave] = pair;
        kept.push(keep);
        gone.push(leave);
    }
    drop(gone);
    Ok(kept)
}

fn available() -> anyhow::Result<i64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB"));
    Ok(kib.context("MemAvailable")?.trim().parse::<i64>()? << 10)
}

/// A VM wants huge pages until it has stalled for one and got none.
fn starve(vm: &mut StandIn, tid: u32) -> anyhow::Result<Fragmented> {
    let filter = format!("common_pid == {tid}");
    let begun = Counter::start("compaction/mm_compaction_begin", "sync", &filter)?;
    let vmstat = || figures::read(Path::new("/proc/vmstat"));
    let (before, begin) = (vmstat()?, now_us());
    let pressure = figures::pressure(&vm.scope.file("memory.pressure"))?;
    let end = Instant::now() + STALL_LIMIT;
    let mut change = Figures::new();
    // The figures are the whole machine's: another process may have stalled.
    while begun.read()? == 0
        || ["compact_stall", "thp_fault_fallback"]
            .iter()
            .any(|name| figures::count(&change, name) == 0)
    {
        ensure!(Instant::now() < end, "no stall: {change:?}");
        let order = if available()? > LEAST {
            "grow 8"
        } else {
            "drop"
        };
        ensure!(vm.order(order)?, "killed");
        change = figures::since(&vmstat()?, &before);
    }
    let (span_us, compactions) = ((begin, now_us()), begun.read()?);
    std::thread::sleep(PRESSURE_IS_OLD);
    let now = figures::pressure(&vm.scope.file("memory.pressure"))?;
    Ok(Fragmented {
        tid,
        span_us,
        vmstat: change,
        pressure: figures::since(&now, &pressure),
        compactions,
    })
}

//! Whom an open wait is to be charged to: the programs' walk over a CPU's log,
//! in user space.

use headroom_abi::blame::{self, LOG_LEN, MAX_STEPS, Segment, kind};
use headroom_abi::tag;

use crate::probe::map::CpuRecord;
use crate::probe::reading::Reading;

/// A wait that has not ended.
pub struct Wait {
    /// Number of the victim's VM.
    pub vm: u32,
    /// When it began, or came to this CPU.
    pub from_ns: u64,
    /// Now.
    pub to_ns: u64,
}

/// Adds the wait to the reading's blame.
pub fn charge(cpu: &CpuRecord, wait: &Wait, reading: &mut Reading) {
    let (mut end, mut irq_end) = (wait.to_ns, cpu.stats.irq_ns);
    for segment in segments(cpu).take(MAX_STEPS) {
        if segment.start_ns == 0 || segment.start_ns > end || end <= wait.from_ns {
            break;
        }
        let start = segment.start_ns.max(wait.from_ns);
        let length = end - segment.start_ns;
        let overlap = end - start;
        let irq = irq_end.saturating_sub(segment.irq_ns);
        book(
            &segment,
            overlap,
            blame::interrupts(irq, overlap, length),
            wait.vm,
            reading,
        );
        (end, irq_end) = (start, segment.irq_ns);
    }
    reading.blame_ns[kind::UNKNOWN] += end.saturating_sub(wait.from_ns);
}

/// The open segment and the finished ones, the latest first.
fn segments(cpu: &CpuRecord) -> impl Iterator<Item = Segment> {
    let open = Segment {
        start_ns: cpu.stats.since_ns,
        irq_ns: cpu.stats.irq_base_ns,
        tag: cpu.stats.tag,
        pid: cpu.stats.pid,
    };
    let head = usize::try_from(cpu.stats.head).unwrap_or(0);
    let finished = (1..=LOG_LEN.min(head)).map(move |back| (head - back) % LOG_LEN);
    std::iter::once(open).chain(finished.map(|at| cpu.log.segments[at]))
}

fn book(owner: &Segment, ns: u64, irq: u64, vm: u32, reading: &mut Reading) {
    let kind = blame::kind_of(owner.tag, vm);
    reading.blame_ns[kind] += ns - irq;
    reading.blame_ns[kind::INTERRUPT] += irq;
    if kind == kind::VM
        && let Ok(culprit) = u16::try_from(tag::vm(owner.tag))
    {
        reading.open_vms.push((culprit, ns - irq));
    }
}

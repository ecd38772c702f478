//! Rows of the CPUs and of who owned them.

use headroom_abi::sched::CpuStats;
use headroom_abi::tag::role;
use headroom_core::batch::Chunk;
use headroom_core::rows::{CpuOwnerRow, CpuRow};

use super::rows::{Frame, int};

/// Owners in the order of the roles, then interrupts.
const OWNERS: [(&str, usize); 8] = [
    ("unknown", role::UNKNOWN as usize),
    ("vcpu", role::VCPU as usize),
    ("iothread", role::IOTHREAD as usize),
    ("vhost", role::VHOST as usize),
    ("emulator", role::EMULATOR as usize),
    ("host", role::HOST as usize),
    ("kernel", role::KERNEL as usize),
    ("idle", role::IDLE as usize),
];

/// Subtracts the CPUs' totals window by window.
pub struct Cpus {
    base: Vec<CpuStats>,
    base_ns: u64,
    /// Whether interrupts are counted.
    interrupts: bool,
}

impl Cpus {
    /// Begins at these totals; a CPU without events begins at that time
    /// (`CLOCK_MONOTONIC`).
    pub const fn new(base: Vec<CpuStats>, base_ns: u64, interrupts: bool) -> Self {
        Self {
            base,
            base_ns,
            interrupts,
        }
    }

    /// Rows since the last call; the next window begins here. Each CPU has the
    /// window that it was read over: on a starved host the reader may be put
    /// aside for 100 ms between two of them.
    pub fn rows(&mut self, frame: &Frame<'_>, now: &[CpuStats]) -> Vec<Chunk> {
        let base = std::mem::replace(&mut self.base, now.to_vec());
        // A possible CPU that is offline never switches.
        let present = base
            .iter()
            .zip(&self.base)
            .enumerate()
            .filter(|(_, (_, now))| now.switches > 0);
        let spans: Vec<(usize, Span)> = present
            .map(|(cpu, (base, now))| (cpu, Span::of(base, now, self.base_ns)))
            .collect();
        let cpus: Vec<CpuRow> = spans
            .iter()
            .map(|(cpu, span)| self.cpu(frame, *cpu, span))
            .collect();
        let owners = self.owners(frame, &spans);
        vec![Chunk::of(&cpus), Chunk::of(&owners)]
    }

    fn cpu(&self, frame: &Frame<'_>, cpu: usize, span: &Span) -> CpuRow {
        let time = |r: u32| int(span.roles[r as usize]);
        CpuRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            cpu: super::rows::count(cpu),
            window_ns: int(span.window_ns),
            vcpu_ns: time(role::VCPU),
            iothread_ns: time(role::IOTHREAD),
            vhost_ns: time(role::VHOST),
            emulator_ns: time(role::EMULATOR),
            host_ns: time(role::HOST),
            kernel_ns: time(role::KERNEL),
            interrupt_ns: self.interrupts.then(|| int(span.irq_ns)),
            idle_ns: time(role::IDLE),
            unknown_ns: time(role::UNKNOWN),
            switches: int(span.switches),
            missed_switches: self.interrupts.then(|| int(span.missed)),
            wakeups: int(span.wakeups),
            interrupts: self.interrupts.then(|| int(span.irqs)),
            depth: self
                .interrupts
                .then(|| super::rows::ratio(span.depth_ns, span.window_ns)),
        }
    }

    fn owners(&self, frame: &Frame<'_>, spans: &[(usize, Span)]) -> Vec<CpuOwnerRow> {
        if spans.is_empty() {
            return Vec::new();
        }
        let total = |f: &dyn Fn(&Span) -> u64| spans.iter().map(|(_, span)| f(span)).sum();
        let capacity: u64 = total(&|span| span.window_ns);
        let window_ns = capacity / spans.len() as u64;
        let row = |owner: &str, ns: u64| CpuOwnerRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            window_ns: int(window_ns),
            owner: owner.to_owned(),
            time_ns: int(ns),
            share: super::rows::ratio(ns, capacity),
        };
        let mut rows: Vec<CpuOwnerRow> = OWNERS
            .iter()
            .map(|(owner, role)| row(owner, total(&|span| span.roles[*role])))
            .collect();
        if self.interrupts {
            rows.push(row("interrupt", total(&|span| span.irq_ns)));
        }
        rows
    }
}

/// What one CPU did between two readings.
struct Span {
    window_ns: u64,
    roles: [u64; 8],
    irq_ns: u64,
    irqs: u64,
    switches: u64,
    missed: u64,
    wakeups: u64,
    depth_ns: u64,
}

impl Span {
    /// `first_ns` is when a CPU was read that had no event at the time.
    fn of(base: &CpuStats, now: &CpuStats, first_ns: u64) -> Self {
        let less = |now: u64, base: u64| now.saturating_sub(base);
        let began = match base.since_ns {
            0 => first_ns,
            since => since,
        };
        Self {
            window_ns: less(now.since_ns, began),
            roles: std::array::from_fn(|r| less(now.role_ns[r], base.role_ns[r])),
            irq_ns: less(now.irq_ns, base.irq_ns),
            irqs: less(now.irqs, base.irqs),
            switches: less(now.switches, base.switches),
            missed: less(now.missed, base.missed),
            wakeups: less(now.wakeups, base.wakeups),
            depth_ns: less(now.depth_ns, base.depth_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use headroom_core::batch::ColumnData;

    use super::*;

    fn sum(chunk: &Chunk, column: &str) -> i64 {
        let at = chunk.table.position(column).unwrap();
        match &chunk.columns[at] {
            ColumnData::Int(values) => values.iter().flatten().sum(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_ns_has_one_owner() {
        let cpu = |since_ns, vcpu, idle, irq| CpuStats {
            switches: 1,
            since_ns,
            irq_ns: irq,
            role_ns: [0, vcpu, 0, 0, 0, 0, 0, idle],
            ..CpuStats::default()
        };
        let offline = CpuStats::default();
        // The first had no event before; between the others the reader waited.
        let before = vec![cpu(0, 5, 5, 0), cpu(1_200, 0, 0, 0), offline];
        let mut cpus = Cpus::new(before, 1_000, true);
        let frame = Frame { ts: 1, host: "h" };
        let after = [cpu(2_000, 605, 305, 100), cpu(2_300, 0, 1_100, 0), offline];
        let rows = cpus.rows(&frame, &after);
        assert_eq!(rows[0].rows(), 2);
        assert_eq!(sum(&rows[0], "window_ns"), 2_100);
        assert_eq!(sum(&rows[1], "time_ns"), 2_100);
        assert_eq!(sum(&rows[1], "window_ns"), 9 * 1_050);
    }
}

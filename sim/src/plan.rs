//! What a seed does: sizes, and faults at their times.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// When faults end and everything is healed.
pub const HEALED: Duration = Duration::from_secs(30);

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The collector ends; with `power`, what was not synced is lost.
    Collector {
        /// Whether the machine ends too.
        power: bool,
    },
    /// The collector's process dies in one of the next disk operations.
    DieIn(u32),
    /// An agent is killed.
    Agent(usize),
    /// Messages between an agent and the collector are lost.
    Cut(usize, Way),
    /// They arrive again.
    Repair(usize, Way),
    /// They wait.
    Hold(usize),
    /// They arrive, late.
    Release(usize),
    /// One write, one sync in so many fails; 0: none.
    Disk(u32, u32),
    /// One commit, one sync of a table in so many fails; 0: none.
    Tables(u32, u32),
    /// Longest half of a piece of work, ms.
    Slow(u32),
}

/// Direction of a partition.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Nothing arrives.
    Both,
    /// Batches are lost.
    There,
    /// Acks are lost.
    Back,
}

/// A whole seed.
#[derive(Debug)]
pub struct Plan {
    /// Number of agents.
    pub agents: usize,
    /// Pause between two batches of an agent, ms.
    pub every_ms: u64,
    /// Longest way of a message, ms.
    pub latency_ms: u64,
    /// Age at which rows go to Parquet.
    pub flush: Duration,
    /// Bytes of a segment of the collector's log.
    pub segment: u64,
    /// Bytes of rows in memory at which the collector refuses.
    pub hot_limit: u64,
    /// Longest wait for others to share a sync.
    pub group_commit: Duration,
    /// Bytes of an agent's spool.
    pub spool: u64,
    /// Faults in the order of their times.
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        let agents = dice.usize(3..6);
        let mut faults = Vec::new();
        dice.ends(agents, &mut faults);
        for agent in 0..agents {
            dice.link(agent, &mut faults);
        }
        dice.disks(&mut faults);
        // Stable: those of one moment stay in their order.
        faults.sort_by_key(|(at, _)| *at);
        Self {
            agents,
            every_ms: dice.number(400..1_600),
            latency_ms: dice.number(5..150),
            flush: Duration::from_millis(dice.number(1_000..6_000)),
            segment: dice.number(4_000..64_000),
            hot_limit: if dice.one_in(5) { 64 << 10 } else { 64 << 20 },
            group_commit: Duration::from_millis(dice.number(1..200)),
            // Some so small that an outage drops batches.
            spool: if dice.one_in(4) { 24 << 10 } else { 64 << 20 },
            faults,
        }
    }
}

struct Dice(StdRng);

impl Dice {
    fn number(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    fn usize(&mut self, range: Range<usize>) -> usize {
        self.0.random_range(range)
    }

    fn small(&mut self, range: Range<u32>) -> u32 {
        self.0.random_range(range)
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.small(0..n) == 0
    }

    fn time(&mut self) -> Duration {
        Duration::from_millis(self.number(1_000..28_000))
    }

    fn ends(&mut self, agents: usize, faults: &mut Vec<(Duration, Fault)>) {
        for _ in 0..self.small(2..5) {
            let power = self.one_in(2);
            faults.push((self.time(), Fault::Collector { power }));
        }
        for _ in 0..self.small(1..4) {
            faults.push((self.time(), Fault::DieIn(self.small(1..20))));
        }
        for _ in 0..self.small(1..5) {
            faults.push((self.time(), Fault::Agent(self.usize(0..agents))));
        }
    }

    /// Troubles of one agent's network, one after the other.
    fn link(&mut self, agent: usize, faults: &mut Vec<(Duration, Fault)>) {
        let mut at = Duration::ZERO;
        loop {
            at += Duration::from_millis(self.number(2_000..12_000));
            let end = at + Duration::from_millis(self.number(300..8_000));
            if end >= HEALED {
                return;
            }
            let (begin, stop) = match self.small(0..4) {
                0 => (
                    Fault::Cut(agent, Way::Both),
                    Fault::Repair(agent, Way::Both),
                ),
                1 => (
                    Fault::Cut(agent, Way::There),
                    Fault::Repair(agent, Way::There),
                ),
                2 => (
                    Fault::Cut(agent, Way::Back),
                    Fault::Repair(agent, Way::Back),
                ),
                _ => (Fault::Hold(agent), Fault::Release(agent)),
            };
            faults.push((at, begin));
            faults.push((end, stop));
            at = end;
        }
    }

    fn disks(&mut self, faults: &mut Vec<(Duration, Fault)>) {
        let none = [Fault::Disk(0, 0), Fault::Tables(0, 0), Fault::Slow(2)];
        for _ in 0..self.small(0..4) {
            let (begin, end) = match self.small(0..3) {
                0 => (Fault::Disk(self.small(2..8), self.small(2..8)), none[0]),
                1 => (Fault::Tables(self.small(2..6), self.small(2..6)), none[1]),
                _ => (Fault::Slow(self.small(10..400)), none[2]),
            };
            let at = self.time();
            faults.push((at, begin));
            faults.push((at + Duration::from_millis(self.number(200..6_000)), end));
        }
        // Whatever overlapped.
        faults.extend(none.map(|end| (HEALED, end)));
    }
}

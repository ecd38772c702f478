//! What the machine tells: JSON lines on its second serial port.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the agent lies inside the machine.
pub const AGENT: &str = "/bin/headroom-agent";
/// File with the modules to load, in order.
pub const MODULES: &str = "/modules/order";
/// File with the scenario's name.
pub const PLAN: &str = "/scenario";
/// The port that messages go to; the first one is the kernel's console.
pub const WIRE: &str = "/dev/ttyS1";

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// The machine is up.
    Begin {
        /// `uname -r`.
        kernel: String,
    },
    /// The agent ran from its start to its end.
    Agent(AgentRun),
    /// What happened, from a source that is not the agent.
    Truth {
        /// Which one.
        name: String,
        /// Its figures.
        value: Value,
    },
    /// The scenario is over.
    End {
        /// Why it could not be carried out.
        error: Option<String>,
        /// What the agent had said by then.
        agent: String,
    },
}

/// All that a process of the agent wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentRun {
    /// As the scenario names it.
    pub name: String,
    /// Lines on standard error.
    pub said: Vec<String>,
    /// Its exit code after SIGTERM; `None`: killed by a signal.
    pub exit_code: Option<i32>,
    /// Lines on standard output.
    pub rows: Vec<Value>,
}

/// What the scheduler says of a vCPU's thread over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// Name of the VM.
    pub vm: String,
    /// Thread id.
    pub tid: u32,
    /// µs since 1970 UTC; ns on a CPU; ns waiting for one. Both cumulative and
    /// without a period that is still open.
    pub samples: Vec<(i64, u64, u64)>,
    /// µs since 1970 UTC; voluntary and other context switches together.
    pub switches: Vec<(i64, u64)>,
}

impl Series {
    /// Run and wait between two times (µs since 1970 UTC), ns, interpolated
    /// between the samples around them; `None` outside the recording.
    #[must_use]
    pub fn between(&self, from_us: i64, to_us: i64) -> Option<(f64, f64)> {
        let (run0, wait0) = self.at(from_us)?;
        let (run1, wait1) = self.at(to_us)?;
        Some((run1 - run0, wait1 - wait0))
    }

    /// Time between the samples around a point, µs: what `between` there may
    /// be wrong by at most.
    #[must_use]
    pub fn gap_at(&self, us: i64) -> Option<i64> {
        let after = self.samples.iter().position(|(t, ..)| *t >= us)?;
        let before = self.samples.get(after.checked_sub(1)?)?;
        Some(self.samples[after].0 - before.0)
    }

    /// Context switches between two times (µs since 1970 UTC), interpolated;
    /// `None` outside the recording.
    #[must_use]
    pub fn switches_between(&self, from_us: i64, to_us: i64) -> Option<f64> {
        let at = |us| interpolated(self.switches.iter().copied(), us);
        Some(at(to_us)? - at(from_us)?)
    }

    #[expect(clippy::cast_precision_loss, reason = "ns of a minute")]
    fn at(&self, us: i64) -> Option<(f64, f64)> {
        let after = self.samples.iter().position(|(t, ..)| *t >= us)?;
        let (t0, run0, wait0) = *self.samples.get(after.checked_sub(1)?)?;
        let (t1, run1, wait1) = self.samples[after];
        let share = (us - t0) as f64 / (t1 - t0).max(1) as f64;
        let mix = |a: u64, b: u64| a as f64 + (b as f64 - a as f64) * share;
        // A wait shows only when it is over, and a run only at the next tick:
        // what shows later than it can have come about was there before.
        let owed = |(t, run, wait): &(i64, u64, u64)| {
            let since = (t - us) as f64 * 1e3;
            (*run as f64 - since, *wait as f64 - since)
        };
        let known = (mix(run0, run1), mix(wait0, wait1));
        let later = self.samples[after..].iter().map(owed);
        Some(later.fold(known, |a, b| (a.0.max(b.0), a.1.max(b.1))))
    }
}

/// What the scheduler says of a CPU over time (`/proc/schedstat`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CpuSeries {
    /// Its number.
    pub cpu: usize,
    /// µs since 1970 UTC; ns in which tasks ran on it; ns in which tasks waited
    /// for it, all together. Both cumulative and without what is still open.
    pub samples: Vec<(i64, u64, u64)>,
}

impl CpuSeries {
    /// Begin and end of the recording.
    #[must_use]
    pub fn span_us(&self) -> (i64, i64) {
        let at = |sample: Option<&(i64, u64, u64)>| sample.map_or(0, |s| s.0);
        (at(self.samples.first()), at(self.samples.last()))
    }

    /// Run and wait between two times (µs since 1970 UTC), ns, interpolated;
    /// `None` outside the recording.
    #[must_use]
    pub fn between(&self, from_us: i64, to_us: i64) -> Option<(f64, f64)> {
        let run = |us| interpolated(self.samples.iter().map(|s| (s.0, s.1)), us);
        let wait = |us| interpolated(self.samples.iter().map(|s| (s.0, s.2)), us);
        Some((run(to_us)? - run(from_us)?, wait(to_us)? - wait(from_us)?))
    }
}

/// A value between its samples.
#[expect(clippy::cast_precision_loss, reason = "ns of a minute")]
fn interpolated(samples: impl Iterator<Item = (i64, u64)>, us: i64) -> Option<f64> {
    let mut before = None;
    for (at, value) in samples {
        if at >= us {
            let (t0, v0): (i64, u64) = before?;
            let share = (us - t0) as f64 / (at - t0).max(1) as f64;
            return Some(v0 as f64 + (value as f64 - v0 as f64) * share);
        }
        before = Some((at, value));
    }
    None
}

/// A CPU as the kernel shows it in `/sys` and `/proc/cpuinfo`; a truth of
/// every scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub cpu: usize,
    /// `physical_package_id`.
    pub socket: usize,
    /// NUMA node.
    pub node: usize,
    /// Threads of its core, as `thread_siblings_list` has them.
    pub siblings: String,
    /// `model name`.
    pub model: String,
}

/// Truth of the NUMA scenarios.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moves {
    /// Thread that was moved.
    pub tid: u32,
    /// CPUs of each node.
    pub nodes: Vec<Vec<usize>>,
    /// Moves to another node, each seen to have happened.
    pub moves: u64,
    /// Migrations that the kernel's tracepoint counted for the thread.
    pub traced: u64,
}

/// Truth of the scenario of remote memory, stay by stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stay {
    /// Node that the vCPU spun on.
    pub node: usize,
    /// Begin and end of it, µs since 1970 UTC.
    pub span_us: (i64, i64),
    /// Anonymous memory of the VM's process by node, bytes, as the walk over
    /// its page tables (`numa_maps`) found it at the end.
    pub memory: Vec<u64>,
}

/// Truth of the quota scenario; differences over the recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Throttling {
    /// The VM's thread.
    pub tid: u32,
    /// Begin and end, µs since 1970 UTC.
    pub span_us: (i64, i64),
    /// `nr_periods` of its `cpu.stat`.
    pub periods: u64,
    /// `nr_throttled`.
    pub throttled_periods: u64,
    /// `throttled_usec`, as ns.
    pub throttled_ns: u64,
}

/// Truth of the block scenario; differences over the recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskReads {
    /// `major:minor`.
    pub device: String,
    /// Time that the disk takes for each request, ns.
    pub latency_ns: u64,
    /// Sectors the guest has read.
    pub guest_reads: u64,
    /// Requests by the kernel's tracepoint `block_rq_issue`.
    pub issued: u64,
    /// Requests by `block_rq_complete`.
    pub completed: u64,
    /// Reads by `/proc/diskstats`.
    pub reads: u64,
    /// Time of these by `/proc/diskstats`, ms.
    pub read_ms: u64,
}

/// Truth of the scenario of noisy neighbours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Neighbours {
    /// Each time that one was noisy.
    pub rounds: Vec<Round>,
    /// Begin and end of the time with one burst, µs since 1970 UTC.
    pub tail_us: (i64, i64),
    /// Begin and end of the burst.
    pub burst_us: (i64, i64),
}

/// One neighbour was noisy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Name of its VM.
    pub vm: String,
    /// Begin and end of it, µs since 1970 UTC.
    pub span_us: (i64, i64),
}

/// Truth of a flooded tap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flood {
    /// The tap.
    pub device: String,
    /// Its queues.
    pub queues: u32,
    /// Packets for each of its queues by the tracepoint `net_dev_start_xmit`;
    /// a queue without one has none.
    pub sent: std::collections::BTreeMap<u64, u64>,
    /// Packets that the tap dropped, all queues together (`tx_dropped`).
    pub dropped: u64,
}

/// Truth of a VM that wanted huge pages of memory in pieces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fragmented {
    /// Thread of its vCPU.
    pub tid: u32,
    /// Begin and end of it, µs since 1970 UTC.
    pub span_us: (i64, i64),
    /// Differences of `/proc/vmstat`.
    pub vmstat: Figures,
    /// `some total` and `full total` of the VM's `memory.pressure`, µs.
    pub pressure: Figures,
    /// Compactions that the thread did itself, by `mm_compaction_begin`.
    pub compactions: u64,
}

/// Truth of the memory scenario, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Squeeze {
    /// The VM's process.
    pub pid: u32,
    /// `reclaim`, `swap`, `oom`.
    pub phases: Vec<Phase>,
}

/// One phase; the maps hold differences of the cgroup's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Begin and end, µs since 1970 UTC.
    pub span_us: (i64, i64),
    /// Whether the VM was killed in it.
    pub killed: bool,
    /// `memory.events`.
    pub events: Figures,
    /// `memory.stat` (counters and gauges alike).
    pub stat: Figures,
    /// `/proc/vmstat`.
    pub vmstat: Figures,
    /// `some total` and `full total` of `memory.pressure`, µs.
    pub pressure: Figures,
}

/// Figures by name.
pub type Figures = std::collections::BTreeMap<String, i64>;

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[(i64, u64, u64)]) -> Series {
        Series {
            samples: samples.to_vec(),
            ..Series::default()
        }
    }

    #[test]
    fn series_are_interpolated_and_end_where_they_end() {
        let series = series(&[
            (0, 0, 0),
            (1000, 600_000, 400_000),
            (2000, 600_000, 1_400_000),
        ]);
        assert_eq!(series.between(500, 1500), Some((300_000.0, 700_000.0)));
        assert_eq!(series.between(0, 1000), None);
        assert_eq!(series.between(500, 2001), None);
        assert_eq!(
            (series.gap_at(500), series.gap_at(2001)),
            (Some(1000), None)
        );
    }

    #[test]
    fn counts_of_cpus_and_switches_are_interpolated() {
        let cpu = CpuSeries {
            cpu: 0,
            samples: vec![(0, 0, 0), (1000, 600, 2000), (2000, 1600, 2000)],
        };
        assert_eq!(cpu.between(500, 1500), Some((800.0, 1000.0)));
        assert_eq!((cpu.between(500, 2001), cpu.between(0, 1000)), (None, None));
        assert_eq!(cpu.span_us(), (0, 2000));
        let series = Series {
            switches: vec![(0, 7), (1000, 17)],
            ..Series::default()
        };
        assert_eq!(series.switches_between(200, 1000), Some(8.0));
    }

    #[test]
    fn an_open_wait_is_counted_from_its_beginning() {
        // Ran for 1 ms, then waited for 3 ms, which shows at the end alone.
        let series = series(&[
            (0, 0, 0),
            (1000, 1_000_000, 0),
            (2000, 1_000_000, 0),
            (3000, 1_000_000, 0),
            (4000, 1_000_000, 3_000_000),
        ]);
        assert_eq!(series.between(1000, 3000), Some((0.0, 2_000_000.0)));
        assert_eq!(series.between(500, 1500), Some((500_000.0, 500_000.0)));
    }
}

//! Figures of the host as a whole.

use headroom_abi::sched::CpuStats;
use headroom_abi::tag;

use crate::clock::monotonic_ns;
use crate::counters::{Counters, Pressure};
use crate::files;
use crate::sampler::stat::NS_PER_TICK;
use crate::topology::list;

/// Cumulative figures of the host; `None` is unavailable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReading {
    at_ns: u64,
    threads: u64,
    /// Each CPU's idle time: one that goes back (an open period read while it
    /// ended) must not take from another's.
    idle_ns: Option<Vec<u64>>,
    switches: Option<u64>,
    wakeups: Option<u64>,
    psi_cpu_some_ns: Option<u64>,
}

/// What happened on the host between two readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostSpan {
    pub window_ns: u64,
    pub threads: u64,
    pub idle_ns: Option<u64>,
    pub switches: Option<u64>,
    pub wakeups: Option<u64>,
    pub psi_cpu_some_ns: Option<u64>,
}

impl HostReading {
    /// What happened since `base`.
    pub fn since(&self, base: &Self) -> HostSpan {
        let window_ns = self.at_ns.saturating_sub(base.at_ns);
        let less =
            |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(n, t)| n.saturating_sub(t));
        let idle = |(now, then): (&Vec<u64>, &Vec<u64>)| {
            // No CPU idles longer than the window.
            now.iter()
                .zip(then)
                .map(|(n, t)| n.saturating_sub(*t).min(window_ns))
                .sum()
        };
        HostSpan {
            window_ns,
            threads: self.threads,
            idle_ns: self.idle_ns.as_ref().zip(base.idle_ns.as_ref()).map(idle),
            switches: less(self.switches, base.switches),
            wakeups: less(self.wakeups, base.wakeups),
            psi_cpu_some_ns: less(self.psi_cpu_some_ns, base.psi_cpu_some_ns),
        }
    }
}

impl HostSpan {
    /// Time of all CPUs outside the idle task.
    pub fn busy_ns(&self) -> Option<u64> {
        Some((self.window_ns * self.threads).saturating_sub(self.idle_ns?))
    }
}

/// Memory of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: Option<u64>,
}

/// Reads the host's figures and keeps those that do not change.
pub struct HostReader {
    kernel: String,
    numa_nodes: u64,
}

impl HostReader {
    pub fn new() -> Self {
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        // A kernel without NUMA has no such file: one node.
        let nodes = len("/sys/devices/system/node/online");
        Self {
            kernel,
            numa_nodes: nodes.unwrap_or(1),
        }
    }

    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    pub const fn numa_nodes(&self) -> u64 {
        self.numa_nodes
    }

    pub fn memory(&self) -> Memory {
        files::text("/proc/meminfo")
            .map(|t| memory(&t))
            .unwrap_or_default()
    }

    /// The figures now. Without probes idle time and switches come from
    /// `/proc/stat`, in clock ticks; wake-ups are unavailable.
    pub fn read(&self, cpus: Option<&[CpuStats]>) -> HostReading {
        let threads = len("/sys/devices/system/cpu/online").unwrap_or(1);
        let psi_cpu_some_ns = files::text("/proc/pressure/cpu");
        let psi_cpu_some_ns = psi_cpu_some_ns.and_then(|t| Pressure::parse(&t).some_ns);
        let base = HostReading {
            at_ns: monotonic_ns(),
            threads,
            psi_cpu_some_ns,
            ..HostReading::default()
        };
        match cpus {
            Some(cpus) => from_probes(base, cpus),
            None => from_stat(base, &files::text("/proc/stat").unwrap_or_default()),
        }
    }
}

fn from_probes(mut base: HostReading, cpus: &[CpuStats]) -> HostReading {
    // CPUs are read one after the other: the mean makes the time of all of
    // them what they were read over.
    let seen = || cpus.iter().map(|c| c.since_ns).filter(|&at| at > 0);
    if let Some(mean) = seen().sum::<u64>().checked_div(seen().count() as u64) {
        base.at_ns = mean;
    }
    base.idle_ns = Some(cpus.iter().map(idle).collect());
    base.switches = Some(cpus.iter().map(|c| c.switches).sum());
    base.wakeups = Some(cpus.iter().map(|c| c.wakeups).sum());
    base
}

fn idle(cpu: &CpuStats) -> u64 {
    cpu.role_ns[tag::role::IDLE as usize]
}

fn from_stat(mut base: HostReading, stat: &str) -> HostReading {
    let mut idle_ns = Vec::new();
    for line in stat.lines() {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        if name == "ctxt" {
            base.switches = fields.next().and_then(|f| f.parse().ok());
        } else if name.len() > 3 && name.starts_with("cpu") {
            // user nice system idle iowait: waiting for IO is idling.
            let ticks = fields
                .skip(3)
                .take(2)
                .map(|f| f.parse::<u64>().unwrap_or(0));
            idle_ns.push(ticks.sum::<u64>() * NS_PER_TICK);
        }
    }
    base.idle_ns = (!idle_ns.is_empty()).then_some(idle_ns);
    base
}

fn memory(meminfo: &str) -> Memory {
    let meminfo = Counters::parse(&["MemTotal", "MemAvailable"], meminfo);
    Memory {
        total_bytes: meminfo.bytes("MemTotal").unwrap_or(0),
        available_bytes: meminfo.bytes("MemAvailable"),
    }
}

/// How many CPUs or nodes are in that list; none is no answer.
fn len(list: &str) -> Option<u64> {
    let numbers = list::read(list).filter(|numbers| !numbers.is_empty())?;
    u64::try_from(numbers.len()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files() {
        let dir = tempfile::tempdir().unwrap();
        let online = dir.path().join("online");
        let cpus = |text: &str| {
            std::fs::write(&online, text).unwrap();
            len(online.to_str().unwrap())
        };
        assert_eq!(cpus("0-3,8,10-11\n"), Some(7));
        assert_eq!((cpus("0\n"), cpus("\n")), (Some(1), None));
        let m = memory("MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n");
        assert_eq!(
            (m.total_bytes, m.available_bytes),
            (16 << 20, Some(8 << 20))
        );
        assert_eq!(memory("MemTotal: 4 kB\n").available_bytes, None);
    }

    #[test]
    fn idle_from_both_sources() {
        let stat = "cpu  9 9 9 900 9\ncpu0 1 1 1 300 5 0\ncpu1 1 1 1 500 0 0\nctxt 777\n";
        let r = from_stat(HostReading::default(), stat);
        assert_eq!(
            (r.idle_ns, r.switches, r.wakeups),
            (Some(vec![3_050_000_000, 5_000_000_000]), Some(777), None)
        );
        let cpu = |idle_ns| CpuStats {
            switches: 5,
            wakeups: 3,
            since_ns: 100 + idle_ns,
            role_ns: [0, 0, 0, 0, 0, 0, 0, idle_ns],
            ..CpuStats::default()
        };
        let r = from_probes(HostReading::default(), &[cpu(10), cpu(20)]);
        assert_eq!(
            (r.idle_ns, r.switches, r.wakeups),
            (Some(vec![10, 20]), Some(10), Some(6))
        );
        assert_eq!(r.at_ns, 115);
    }

    #[test]
    fn busy_is_never_negative() {
        let at = |at_ns, idle: &[u64]| HostReading {
            at_ns,
            threads: 2,
            idle_ns: Some(idle.to_vec()),
            ..HostReading::default()
        };
        let span = at(1_000, &[900, 50]).since(&at(0, &[0, 60]));
        assert_eq!((span.idle_ns, span.busy_ns()), (Some(900), Some(1_100)));
        let span = at(1_000, &[5_000, 5_000]).since(&at(0, &[0, 0]));
        assert_eq!(span.busy_ns(), Some(0));
        assert_eq!(
            HostSpan {
                window_ns: 5,
                threads: 1,
                ..HostSpan::default()
            }
            .busy_ns(),
            None
        );
    }
}

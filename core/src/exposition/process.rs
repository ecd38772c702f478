//! What a process takes, by the names that every Prometheus client library
//! gives it.
//!
//! source: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use super::{Metric, Page, Type};
use crate::metric::Unit;

/// CPU time is told in these steps to user space on every architecture that
/// Linux has KVM for: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// The metrics of [`Usage`].
pub static PROCESS: &[Metric] = &[
    gauge(
        "process_cpu_seconds_total",
        Type::Counter,
        Unit::Seconds,
        "CPU time of the process, user and system.",
    ),
    gauge(
        "process_resident_memory_bytes",
        Type::Gauge,
        Unit::Bytes,
        "Memory of the process in RAM.",
    ),
    gauge(
        "process_start_time_seconds",
        Type::Gauge,
        Unit::Seconds,
        "Start of the process, since 1970 UTC.",
    ),
];

/// What a process took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time, s.
    pub cpu: Option<f64>,
    /// Memory in RAM, bytes.
    pub resident: Option<f64>,
}

impl Usage {
    /// From the texts of `/proc/self/stat` and `/proc/self/status`.
    #[must_use]
    pub fn of(stat: &str, status: &str) -> Self {
        // The name before the last parenthesis may hold anything.
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
        let ticks = |mut fields: std::str::Split<'_, char>| {
            let user: u64 = fields.nth(11)?.parse().ok()?;
            let system: u64 = fields.next()?.parse().ok()?;
            Some((user + system) as f64 / TICKS_PER_SECOND)
        };
        let kib = |line: &str| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        };
        Self {
            cpu: fields.and_then(ticks),
            resident: status.lines().find_map(kib).map(|k| (k * 1024) as f64),
        }
    }

    /// Writes it; `started` in seconds since 1970 UTC.
    pub fn write(&self, page: &mut Page, started: f64) {
        let values = [self.cpu, self.resident, Some(started)];
        for (metric, value) in PROCESS.iter().zip(values) {
            page.single(metric, value);
        }
    }
}

const fn gauge(name: &'static str, kind: Type, unit: Unit, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        unit,
        labels: &[],
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 5 1 1";
        let usage = Usage::of(stat, "Name:\ta\nVmRSS:\t   12 kB\nThreads:\t1\n");
        assert_eq!(
            usage,
            Usage {
                cpu: Some(3.0),
                resident: Some(12288.0)
            }
        );
        assert_eq!(Usage::of("", ""), Usage::default());
    }
}

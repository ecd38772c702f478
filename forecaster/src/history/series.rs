//! From bins to a regular series.

use std::collections::BTreeMap;

use super::Metric;
use crate::clock::{Micros, seconds};

/// Missing steps that are filled by a straight line; a longer gap cuts the
/// series, because a line through it would be invented data.
const MAX_FILL: i64 = 3;
/// Share of a bin that windows must cover for it to count.
const MIN_COVER: f64 = 0.5;

/// Sums over the windows in one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Time running (of a host: busy) or ready.
    pub demand_ns: f64,
    /// Time ready.
    pub ready_ns: f64,
    /// Length of the windows.
    pub window_ns: f64,
    /// Length of the windows times vCPUs.
    pub vcpu_ns: f64,
}

impl Bin {
    /// Adds another part of the same bin.
    pub fn add(&mut self, other: &Self) {
        self.demand_ns += other.demand_ns;
        self.ready_ns += other.ready_ns;
        self.window_ns += other.window_ns;
        self.vcpu_ns += other.vcpu_ns;
    }

    /// The metric's value; `None` where it is unavailable, as `ready_ratio`
    /// of a host without VMs.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let (sum, of) = match metric {
            Metric::DemandVcpus => (self.demand_ns, self.window_ns),
            Metric::ReadyRatio => (self.ready_ns, self.vcpu_ns),
        };
        (of > 0.0)
            .then(|| sum / of)
            .filter(|v| v.is_finite() && *v >= 0.0)
    }
}

/// The latest part of the series that has no long gap, and the end of its last
/// step. Short gaps are filled.
pub(super) fn regular(
    bins: &BTreeMap<Micros, Bin>,
    metric: Metric,
    step: Micros,
) -> Option<(Vec<f64>, Micros)> {
    let covered = |bin: &Bin| bin.window_ns >= MIN_COVER * seconds(step) * 1e9;
    let known = bins
        .iter()
        .rev()
        .filter(|(_, b)| covered(b))
        .filter_map(|(t, b)| Some((*t, b.value(metric)?)));
    let mut values: Vec<f64> = Vec::new();
    let mut next: Option<(Micros, f64)> = None;
    let mut end = None;
    for (start, value) in known {
        if let Some((later, to)) = next {
            let missing = (later - start) / step - 1;
            if missing > MAX_FILL {
                break;
            }
            for i in 1..=missing {
                let share = seconds(i) / seconds(missing + 1);
                values.push(to + (value - to) * share);
            }
        } else {
            end = Some(start + step);
        }
        values.push(value);
        next = Some((start, value));
    }
    values.reverse();
    Some((values, end?))
}

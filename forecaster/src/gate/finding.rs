//! Findings: limits that are, or will be, crossed.

use crate::clock::{Micros, seconds};
use crate::config::GateConfig;
use crate::history::{Host, Metric, Series, Subject, Vm};
use crate::model::{Prediction, Selection, float};

/// Latest steps whose mean is the present value.
const PRESENT_STEPS: usize = 3;

/// A series with its forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// History.
    pub series: Series,
    /// The chosen model.
    pub selection: Selection,
    /// Its forecast; step `i` ends `i + 1` steps after the history.
    pub prediction: Prediction,
    /// When the forecast was made, as stored with it.
    pub made_at: Micros,
}

impl Outlook {
    /// Mean of the latest three steps.
    #[must_use]
    pub fn present(&self) -> f64 {
        let tail = self.tail();
        tail.iter().sum::<f64>() / float(tail.len().max(1))
    }

    /// How long the present is, µs.
    #[must_use]
    pub fn present_length(&self) -> Micros {
        self.series.step * Micros::try_from(self.tail().len()).unwrap_or(1)
    }

    /// Largest upper end of the 80 % interval within the horizon.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.prediction.p90.iter().copied().fold(0.0, f64::max)
    }

    /// End of a forecast step.
    #[must_use]
    pub fn at(&self, step: usize) -> Micros {
        self.series.end + self.series.step * Micros::try_from(step + 1).unwrap_or(Micros::MAX / 2)
    }

    fn tail(&self) -> &[f64] {
        &self.series.values[self.series.values.len().saturating_sub(PRESENT_STEPS)..]
    }
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A VM's demand against its vCPUs.
    VmDemand,
    /// A VM's ready.
    VmReady,
    /// A host's demand against its CPU threads.
    HostDemand,
}

/// A limit with the probability that it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// ULID with prefix `fnd_`.
    pub id: String,
    /// Which limit.
    pub rule: Rule,
    /// The VM, for rules of VMs.
    pub vm: Option<Vm>,
    /// The host.
    pub host: Host,
    /// The series with its forecast.
    pub outlook: Outlook,
    /// The limit in the metric's unit.
    pub limit: f64,
    /// Probability that the limit is reached within the horizon.
    pub p_breach: f64,
    /// Whether the 80 % interval's upper end reaches the limit.
    pub crosses: bool,
    /// Whether the present is above the limit already.
    pub crossed: bool,
    /// When the limit is reached; the median's crossing, else the upper end's.
    pub breach_at: Option<Micros>,
    /// Length of the history, µs.
    pub history: Micros,
}

/// Every limit of every outlook.
pub(super) fn find(outlooks: &[Outlook], config: &GateConfig) -> Vec<Finding> {
    outlooks
        .iter()
        .filter_map(|o| judge(o, outlooks, config))
        .collect()
}

/// Time from now until the breach, 0 where the limit is crossed already.
pub(super) fn lead(finding: &Finding, now: Micros) -> Micros {
    if finding.crossed {
        0
    } else {
        finding.breach_at.map_or(0, |at| (at - now).max(0))
    }
}

fn judge(outlook: &Outlook, all: &[Outlook], config: &GateConfig) -> Option<Finding> {
    let limits = &config.limits;
    let metric = outlook.series.metric;
    let (rule, vm, host, limit) = match (&outlook.series.subject, metric) {
        (Subject::Vm(vm), Metric::DemandVcpus) => (
            Rule::VmDemand,
            Some(vm),
            host(&vm.host, all),
            limits.vm_demand * count(vm.vcpus),
        ),
        (Subject::Vm(vm), Metric::ReadyRatio) => (
            Rule::VmReady,
            Some(vm),
            host(&vm.host, all),
            limits.vm_ready,
        ),
        (Subject::Host(h), Metric::DemandVcpus) => (
            Rule::HostDemand,
            None,
            h.clone(),
            limits.host_demand * count(h.threads),
        ),
        // The ready of a host is stored for reading; its VMs carry the limit.
        (Subject::Host(_), Metric::ReadyRatio) => return None,
    };
    if limit <= 0.0 {
        return None;
    }
    let first = |band: &[f64]| band.iter().position(|v| *v >= limit);
    let upper = first(&outlook.prediction.p90);
    let crossed = outlook.present() >= limit;
    let breach = first(&outlook.prediction.p50)
        .or(upper)
        .map(|step| outlook.at(step));
    let points = Micros::try_from(outlook.series.values.len()).unwrap_or(0);
    Some(Finding {
        id: format!("fnd_{}", ulid::Ulid::new()),
        rule,
        vm: vm.cloned(),
        host,
        limit,
        p_breach: outlook.prediction.p_breach(limit),
        crosses: upper.is_some(),
        crossed,
        breach_at: if crossed {
            Some(outlook.series.end)
        } else {
            breach
        },
        history: points * outlook.series.step,
        outlook: outlook.clone(),
    })
}

fn host(name: &str, all: &[Outlook]) -> Host {
    let known = all.iter().find_map(|o| match &o.series.subject {
        Subject::Host(h) if h.name == name => Some(h.clone()),
        _ => None,
    });
    known.unwrap_or_else(|| Host {
        name: name.into(),
        ..Host::default()
    })
}

/// A count of the store as a float; counts stay far below 2^53.
pub(super) fn count(value: i64) -> f64 {
    seconds(value) * 1e6
}

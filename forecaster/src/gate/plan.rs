//! Plans: what to do about a finding.

use super::effect;
use super::finding::{Finding, Outlook, Rule, count};
use crate::config::Limits;
use crate::history::{Host, Metric, Subject, Vm};

/// Kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// More vCPUs for a VM.
    ScaleUp,
    /// A VM to another host.
    Migrate,
    /// More CPU threads, or fewer VMs, for a host.
    Capacity,
}

impl Kind {
    /// Name as in the schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScaleUp => "scale_up",
            Self::Migrate => "migrate",
            Self::Capacity => "capacity",
        }
    }
}

/// The change itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Number of vCPUs.
    Vcpus {
        /// Now.
        from: i64,
        /// Then.
        to: i64,
    },
    /// Another host.
    Move {
        /// Host with room.
        to: Host,
    },
    /// CPU threads the host lacks.
    Threads {
        /// Now.
        from: i64,
        /// Then.
        to: i64,
    },
}

/// Load and waiting of the hosts concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostState {
    /// Peak demand / CPU threads of the finding's host.
    pub load: f64,
    /// Waiting vCPUs by [`effect::waiting`], over all hosts concerned.
    pub waiting: f64,
    /// Ready per vCPU that belongs to it, percent.
    pub ready_pct: f64,
    /// Largest factor on the peak after the loss of the largest host.
    pub lambda_n1: f64,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Kind of change.
    pub kind: Kind,
    /// The change.
    pub change: Change,
    /// What it is made for.
    pub finding: Finding,
    /// At the forecast peak without the change.
    pub before: HostState,
    /// At the forecast peak with it.
    pub after: HostState,
}

impl Plan {
    /// `vm/ID`, or `host/NAME` where the host is what changes.
    #[must_use]
    pub fn subject(&self) -> String {
        match (&self.finding.vm, self.kind) {
            (Some(vm), Kind::ScaleUp | Kind::Migrate) => format!("vm/{}", vm.id),
            _ => format!("host/{}", self.finding.host.name),
        }
    }

    /// Subject and kind: what the cooldown counts by.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{} {}", self.subject(), self.kind.name())
    }
}

/// The plan for a finding.
pub(super) fn plan(finding: Finding, outlooks: &[Outlook], limits: &Limits) -> Plan {
    let (kind, change) = match (finding.rule, &finding.vm) {
        (Rule::VmDemand, Some(vm)) => scale_up(&finding, vm, outlooks, limits),
        (Rule::VmReady, Some(vm)) => match room(vm, outlooks, limits) {
            Some(to) => (Kind::Migrate, Change::Move { to }),
            None => capacity(&finding, outlooks, limits),
        },
        _ => capacity(&finding, outlooks, limits),
    };
    let (before, after) = states(&finding, &change, outlooks, limits);
    Plan {
        kind,
        change,
        finding,
        before,
        after,
    }
}

/// Enough vCPUs for the peak to stay under the limit: one more at least, twice
/// as many at most, because demand above today's vCPUs was never seen, and not
/// more than the host has threads.
fn scale_up(finding: &Finding, vm: &Vm, outlooks: &[Outlook], limits: &Limits) -> (Kind, Change) {
    let threads = finding.host.threads;
    if vm.vcpus >= threads && threads > 0 {
        return capacity(finding, outlooks, limits);
    }
    let wanted = ceil(finding.outlook.peak() / limits.vm_demand);
    let most = (2 * vm.vcpus).min(if threads > 0 { threads } else { i64::MAX });
    let to = wanted.clamp(vm.vcpus + 1, most.max(vm.vcpus + 1));
    (Kind::ScaleUp, Change::Vcpus { from: vm.vcpus, to })
}

/// Enough threads for the host's peak demand to stay under the limit, one more
/// at least.
fn capacity(finding: &Finding, outlooks: &[Outlook], limits: &Limits) -> (Kind, Change) {
    let from = finding.host.threads;
    let peak = host_peak(&finding.host, outlooks);
    (
        Kind::Capacity,
        Change::Threads {
            from,
            to: ceil(peak / limits.host_demand).max(from + 1),
        },
    )
}

/// The host with the least load of those that could take the VM at both peaks.
fn room(vm: &Vm, outlooks: &[Outlook], limits: &Limits) -> Option<Host> {
    let own = demand(outlooks, &format!("vm/{}", vm.id)).map_or(count(vm.vcpus), Outlook::peak);
    let fits = |host: &Host| {
        let load = (host_peak(host, outlooks) + own) / count(host.threads);
        (host.name != vm.host && host.threads >= vm.vcpus && load <= limits.host_demand)
            .then_some(load)
    };
    let loads = hosts(outlooks).filter_map(|h| Some((fits(h)?, h)));
    loads
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, h)| h.clone())
}

fn states(
    finding: &Finding,
    change: &Change,
    outlooks: &[Outlook],
    limits: &Limits,
) -> (HostState, HostState) {
    let host = &finding.host;
    let peak = host_peak(host, outlooks);
    let fleet: Vec<(String, f64, f64)> = hosts(outlooks)
        .map(|h| (h.name.clone(), count(h.threads), host_peak(h, outlooks)))
        .collect();
    let state = |vcpus: i64, demand: f64, threads: i64, fleet: &[(String, f64, f64)]| {
        let waiting = effect::waiting(vcpus, demand, threads);
        let pairs: Vec<(f64, f64)> = fleet.iter().map(|h| (h.1, h.2)).collect();
        HostState {
            load: if threads > 0 {
                demand / count(threads)
            } else {
                0.0
            },
            waiting,
            ready_pct: if vcpus > 0 {
                100.0 * waiting / count(vcpus)
            } else {
                0.0
            },
            lambda_n1: effect::lambda_n1(&pairs, limits.host_demand),
        }
    };
    let mut before = state(host.vcpus, peak, host.threads, &fleet);
    let mut changed = fleet.clone();
    let after = match change {
        Change::Vcpus { from, to } => state(host.vcpus + to - from, peak, host.threads, &changed),
        Change::Threads { to, .. } => {
            changed
                .iter_mut()
                .filter(|h| h.0 == host.name)
                .for_each(|h| h.1 = count(*to));
            state(host.vcpus, peak, *to, &changed)
        }
        Change::Move { to } => {
            let vcpus = finding.vm.as_ref().map_or(0, |v| v.vcpus);
            let own = finding
                .vm
                .as_ref()
                .and_then(|v| demand(outlooks, &format!("vm/{}", v.id)));
            let moved = own.map_or(count(vcpus), Outlook::peak).min(peak);
            let there = host_peak(to, outlooks);
            before.waiting += effect::waiting(to.vcpus, there, to.threads);
            let mut left = state(host.vcpus - vcpus, peak - moved, host.threads, &changed);
            left.waiting += effect::waiting(to.vcpus + vcpus, there + moved, to.threads);
            left
        }
    };
    (before, after)
}

/// Forecast peak of a host's demand; all threads where it has no forecast.
pub(super) fn host_peak(host: &Host, outlooks: &[Outlook]) -> f64 {
    demand(outlooks, &format!("host/{}", host.name)).map_or(count(host.threads), Outlook::peak)
}

pub(super) fn hosts(outlooks: &[Outlook]) -> impl Iterator<Item = &Host> {
    outlooks
        .iter()
        .filter(|o| o.series.metric == Metric::DemandVcpus)
        .filter_map(|o| match &o.series.subject {
            Subject::Host(h) => Some(h),
            Subject::Vm(_) => None,
        })
}

fn demand<'a>(outlooks: &'a [Outlook], key: &str) -> Option<&'a Outlook> {
    outlooks
        .iter()
        .find(|o| o.series.metric == Metric::DemandVcpus && o.series.subject.key() == key)
}

fn ceil(value: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to a range that fits"
    )]
    let whole = value.ceil().clamp(0.0, 1e9) as i64;
    whole
}

//! History of every VM and host, read from the collector by SQL.
//!
//! **Invariant:** the only thing known about the store is the column names of
//! `headroom_core::rows`; nothing of the collector is imported.
//!
//! The collector sums windows into bins of one step; each refresh asks only
//! for the latest bins again, and every `RELOAD_EVERY` refreshes for all of
//! them, because an agent that was cut off ships its old windows late.

mod client;
mod fetch;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

pub use client::{HistoryError, SqlClient, channel};
pub use series::Bin;

use crate::clock::{Micros, rfc3339};

/// Refreshes after which everything is read again.
const RELOAD_EVERY: u32 = 20;
/// Bins read again at each refresh: windows arrive some seconds late.
const LATE_BINS: i64 = 3;
/// A subject without data for that many steps is gone.
const GONE_AFTER_BINS: i64 = 6;
/// The step grows with the history until the horizon has this many steps.
const FEWEST_STEPS: i64 = 12;
/// Multiples of the data's own window that a step can be.
const MULTIPLES: [i64; 11] = [1, 2, 3, 6, 12, 30, 60, 120, 180, 360, 720];

/// What is forecast of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// vCPUs running or ready (of a host: busy threads and waiting vCPUs).
    DemandVcpus,
    /// Share of vCPU time spent ready, averaged over vCPUs.
    ReadyRatio,
}

impl Metric {
    /// Name in table `forecasts`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DemandVcpus => "demand_vcpus",
            Self::ReadyRatio => "ready_ratio",
        }
    }
}

/// What the latest rows say of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vm {
    /// Stable id.
    pub id: String,
    /// Name of the platform.
    pub name: String,
    /// Host it runs on.
    pub host: String,
    /// Number of vCPUs.
    pub vcpus: i64,
    /// libvirt, proxmox, openstack, kubevirt or qemu.
    pub platform: String,
    /// Tenant, where known.
    pub tenant: Option<String>,
}

/// What the latest rows say of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Online CPU threads.
    pub threads: i64,
    /// vCPUs of the VMs on it.
    pub vcpus: i64,
}

/// One VM or host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A VM.
    Vm(Vm),
    /// A host.
    Host(Host),
}

impl Subject {
    /// `vm/ID` or `host/NAME`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Vm(vm) => format!("vm/{}", vm.id),
            Self::Host(host) => format!("host/{}", host.name),
        }
    }
}

/// A regular series without gaps, ending with the latest complete step.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Whose.
    pub subject: Subject,
    /// Of what.
    pub metric: Metric,
    /// Values, oldest first.
    pub values: Vec<f64>,
    /// End of the last value's step.
    pub end: Micros,
    /// Length of a step, µs.
    pub step: Micros,
    /// Length of the data's own windows, µs.
    pub window: Micros,
}

/// Keeps the history of everything up to date.
pub struct History {
    client: SqlClient,
    max_points: usize,
    horizon: Micros,
    grid: Option<Grid>,
    refreshes: u32,
    bins: BTreeMap<String, Track>,
}

/// The bins that windows are summed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    window: Micros,
    step: Micros,
}

struct Track {
    subject: Subject,
    bins: BTreeMap<Micros, Bin>,
}

impl History {
    /// An empty history of at most `max_points` steps a series.
    #[must_use]
    pub fn new(client: SqlClient, max_points: usize, horizon: Duration) -> Self {
        let horizon = Micros::try_from(horizon.as_micros()).unwrap_or(Micros::MAX);
        Self {
            client,
            max_points,
            horizon,
            grid: None,
            refreshes: 0,
            bins: BTreeMap::new(),
        }
    }

    /// Reads what is new. Without any data the history stays empty.
    ///
    /// # Errors
    /// The collector does not answer, or not as its tables are declared.
    pub async fn refresh(&mut self, now: Micros) -> Result<(), HistoryError> {
        if self.grid.is_none() || self.refreshes >= RELOAD_EVERY {
            let grid = self.probe(now).await?;
            self.bins.clear();
            (self.grid, self.refreshes) = (grid, 0);
        }
        let Some(grid) = self.grid else { return Ok(()) };
        let kept = i64::try_from(self.max_points)
            .unwrap_or(i64::MAX)
            .saturating_mul(grid.step);
        let latest = self.latest();
        let from = latest
            .map_or(now - kept, |l| l - LATE_BINS * grid.step)
            .div_euclid(grid.step)
            * grid.step;
        // Both answers before any change: a failure in between must not leave
        // bins that are half gone.
        let vms = self
            .client
            .query(&fetch::vms_sql(grid.step, grid.window, from))
            .await?;
        let hosts = self
            .client
            .query(&fetch::hosts_sql(grid.step, grid.window, from))
            .await?;
        let fresh = [fetch::vms(&vms)?, fetch::hosts(&hosts)?].concat();
        self.bins
            .values_mut()
            .for_each(|t| drop(t.bins.split_off(&from)));
        for (subject, start, bin) in fresh {
            let track = self.bins.entry(subject.key());
            let track = track.or_insert_with(|| Track {
                subject: subject.clone(),
                bins: BTreeMap::new(),
            });
            track.subject = subject;
            track.bins.entry(start).or_default().add(&bin);
        }
        let oldest = self.latest().unwrap_or(now) - kept;
        self.bins
            .values_mut()
            .for_each(|t| t.bins = t.bins.split_off(&oldest));
        self.bins.retain(|_, t| !t.bins.is_empty());
        self.refreshes += 1;
        Ok(())
    }

    /// Steps that cover the horizon; 0 while there is no data.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.grid.map_or(0, |g| {
            usize::try_from((self.horizon + g.step - 1) / g.step).unwrap_or(usize::MAX)
        })
    }

    /// The series of every subject that is still there.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        let (Some(grid), Some(latest)) = (self.grid, self.latest()) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for track in self.bins.values() {
            if track
                .bins
                .last_key_value()
                .is_none_or(|(last, _)| latest - last > GONE_AFTER_BINS * grid.step)
            {
                continue;
            }
            for metric in [Metric::DemandVcpus, Metric::ReadyRatio] {
                if let Some((values, end)) = series::regular(&track.bins, metric, grid.step) {
                    all.push(Series {
                        subject: track.subject.clone(),
                        metric,
                        values,
                        end,
                        step: grid.step,
                        window: grid.window,
                    });
                }
            }
        }
        all
    }

    fn latest(&self) -> Option<Micros> {
        self.bins
            .values()
            .filter_map(|t| t.bins.last_key_value().map(|(k, _)| *k))
            .max()
    }

    async fn probe(&self, now: Micros) -> Result<Option<Grid>, HistoryError> {
        let recent = self.client.query(&fetch::window_sql()).await?;
        let Some(window) = fetch::window(&recent)? else {
            return Ok(None);
        };
        let points = i64::try_from(self.max_points).unwrap_or(i64::MAX);
        let widest = (self.horizon / FEWEST_STEPS).max(window);
        let sql = format!(
            "SELECT min(ts) AS ts FROM hosts WHERE ts >= '{}'",
            rfc3339(now - points.saturating_mul(widest))
        );
        let first = fetch::time(&self.client.query(&sql).await?)?.unwrap_or(now);
        Ok(Some(Grid {
            window,
            step: step(window, widest, (now - first) / points),
        }))
    }
}

/// The smallest step that lets the whole history fit, up to the widest.
fn step(window: Micros, widest: Micros, needed: Micros) -> Micros {
    let steps = MULTIPLES
        .iter()
        .map(|m| m * window)
        .take_while(|s| *s <= widest);
    let mut largest = window;
    for step in steps {
        largest = step;
        if step >= needed {
            break;
        }
    }
    largest
}

#[cfg(test)]
mod tests;

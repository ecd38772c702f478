//! Prometheus series of VMs and hosts, made from the rows of their windows.
//!
//! Windows are sums over their own time; here they add up to counters that
//! only grow, so that `rate()` works whatever was scraped or lost between.
//! The agent exposes them, the collector sends them on.
//!
//! **Invariant:** what a window could not tell is absent, never 0.

mod catalogue;

use std::collections::BTreeMap;

use crate::batch::{Chunk, ColumnData};
use crate::exposition::{Metric, Page};
use crate::hist::{Hist, index};
use crate::metric::Table;

pub use catalogue::{HOST_SERIES, VM_SERIES};

/// Upper bounds of the exposed histograms, ns: each second power of two, which
/// are bounds of the stored histograms as well, so no wait is put on a wrong
/// side.
pub const BOUNDS_NS: [u64; 9] = [
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
    1 << 30,
];

/// The same in seconds as labels, and the last bucket.
const LE: [&str; 10] = [
    "0.000016384",
    "0.000065536",
    "0.000262144",
    "0.001048576",
    "0.004194304",
    "0.016777216",
    "0.067108864",
    "0.268435456",
    "1.073741824",
    "+Inf",
];

/// How a column becomes a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Sum of ns, as seconds.
    Seconds,
    /// Sum of a number.
    Sum,
    /// The last value.
    Last,
    /// Histogram of waits; its sum is that of the named column, ns.
    Hist(&'static str),
    /// Time that vCPUs were ready over the time of all vCPUs.
    Pressure,
}

/// One series of a VM or host.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// As it is exposed.
    pub metric: Metric,
    /// Table of its rows.
    pub table: &'static str,
    /// Column of its values.
    pub column: &'static str,
    /// From the one to the other.
    pub how: How,
}

/// Rows by column name; a missing column is unavailable.
pub trait Cells {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// A whole number.
    fn int(&self, column: &str, row: usize) -> Option<i64>;
    /// Any number.
    fn float(&self, column: &str, row: usize) -> Option<f64>;
    /// A text.
    fn text(&self, column: &str, row: usize) -> Option<&str>;
    /// A histogram in its stored form.
    fn bytes(&self, column: &str, row: usize) -> Option<&[u8]>;
}

/// Counters and gauges of every VM and host that was told of.
#[derive(Debug, Default)]
pub struct Totals {
    vms: BTreeMap<(String, String), Subject>,
    hosts: BTreeMap<String, Subject>,
}

/// One VM or host.
#[derive(Debug)]
pub struct Subject {
    series: &'static [Series],
    labels: Vec<String>,
    values: Vec<Value>,
    seen: i64,
}

/// What is known of one series.
#[derive(Clone, Debug, Default)]
struct Value {
    total: u64,
    gauge: f64,
    counts: Option<Box<[u64; 10]>>,
    /// Whether the last window told it.
    told: bool,
}

/// One number of a subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its metric.
    pub metric: &'static Metric,
    /// What follows the metric's name: a part of a histogram.
    pub suffix: &'static str,
    /// Upper bound, of a bucket.
    pub le: Option<&'static str>,
    /// The value.
    pub value: f64,
}

impl Totals {
    /// Adds one row; gives its VM or host, unless the table has no series.
    /// `seen` is any clock of the caller's, for [`Totals::retire`].
    pub fn add(
        &mut self,
        table: &Table,
        cells: &impl Cells,
        row: usize,
        seen: i64,
    ) -> Option<&Subject> {
        let of = |all: &[Series]| all.iter().any(|s| s.table == table.name);
        let text = |column| cells.text(column, row).map(str::to_owned);
        let subject = if of(VM_SERIES) {
            let key = (text("host")?, text("vm_id")?);
            let labels = || vec![key.0.clone(), key.1.clone(), String::new(), String::new()];
            let new = || Subject::new(VM_SERIES, labels());
            self.vms.entry(key.clone()).or_insert_with(new)
        } else if of(HOST_SERIES) {
            let host = text("host")?;
            let new = || Subject::new(HOST_SERIES, vec![host.clone()]);
            self.hosts.entry(host.clone()).or_insert_with(new)
        } else {
            return None;
        };
        subject.add(table, cells, row);
        subject.seen = seen;
        Some(subject)
    }

    /// Forgets those that were seen last before that time.
    pub fn retire(&mut self, before: i64) {
        self.vms.retain(|_, s| s.seen >= before);
        self.hosts.retain(|_, s| s.seen >= before);
    }

    /// Number of VMs and hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vms.len() + self.hosts.len()
    }

    /// Whether nothing was told of yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all of it, metric by metric.
    pub fn write(&self, page: &mut Page) {
        for (i, series) in VM_SERIES.iter().enumerate() {
            write(page, &series.metric, i, self.vms.values());
        }
        for (i, series) in HOST_SERIES.iter().enumerate() {
            write(page, &series.metric, i, self.hosts.values());
        }
    }
}

fn write<'a>(
    page: &mut Page,
    metric: &'static Metric,
    i: usize,
    subjects: impl Iterator<Item = &'a Subject>,
) {
    let mut family = page.family(metric);
    for subject in subjects {
        let labels: Vec<&str> = subject.labels.iter().map(String::as_str).collect();
        subject.each(i, &mut |s| family.part(s.suffix, &labels, s.le, s.value));
    }
}

impl Subject {
    fn new(series: &'static [Series], labels: Vec<String>) -> Self {
        let values = vec![Value::default(); series.len()];
        Self {
            series,
            labels,
            values,
            seen: 0,
        }
    }

    /// Values of the labels, in the metrics' order.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let names = self.series.first().map_or(&[][..], |s| s.metric.labels);
        names
            .iter()
            .copied()
            .zip(self.labels.iter().map(String::as_str))
    }

    /// Every number that comes from rows of that table.
    pub fn samples_of(&self, table: &Table, emit: &mut dyn FnMut(Sample)) {
        for (i, series) in self.series.iter().enumerate() {
            if series.table == table.name {
                self.each(i, emit);
            }
        }
    }

    fn add(&mut self, table: &Table, cells: &impl Cells, row: usize) {
        // Only the main table of VMs knows all labels.
        for (i, name) in [(2, "vm_name"), (3, "tenant")] {
            if let (Some(label), "vms") = (self.labels.get_mut(i), table.name) {
                cells.text(name, row).unwrap_or_default().clone_into(label);
            }
        }
        for (series, value) in self.series.iter().zip(&mut self.values) {
            if series.table == table.name {
                value.add(series, cells, row);
            }
        }
    }

    fn each(&self, i: usize, emit: &mut dyn FnMut(Sample)) {
        let (Some(series), Some(value)) = (self.series.get(i), self.values.get(i)) else {
            return;
        };
        if !value.told {
            return;
        }
        let sample = |suffix, le, value| Sample {
            metric: &series.metric,
            suffix,
            le,
            value,
        };
        match (series.how, &value.counts) {
            (How::Hist(_), Some(counts)) => {
                let mut below = 0;
                for (le, count) in LE.iter().zip(counts.iter()) {
                    below += count;
                    emit(sample("_bucket", Some(le), below as f64));
                }
                emit(sample("_sum", None, seconds(value.total)));
                emit(sample("_count", None, below as f64));
            }
            (How::Seconds, _) => emit(sample("", None, seconds(value.total))),
            (How::Sum, _) => emit(sample("", None, value.total as f64)),
            _ => emit(sample("", None, value.gauge)),
        }
    }
}

impl Value {
    fn add(&mut self, series: &Series, cells: &impl Cells, row: usize) {
        let whole = |column| cells.int(column, row).and_then(|v| u64::try_from(v).ok());
        self.told = match series.how {
            How::Seconds | How::Sum => self.grow(whole(series.column)),
            How::Last => self.set(cells.float(series.column, row)),
            How::Pressure => self.set(pressure(cells, row)),
            How::Hist(sum) => {
                let hist = cells.bytes(series.column, row);
                match hist.and_then(|b| Hist::decode(b).ok()) {
                    Some(hist) => {
                        self.count(&hist);
                        self.grow(whole(sum))
                    }
                    None => false,
                }
            }
        };
    }

    fn grow(&mut self, by: Option<u64>) -> bool {
        self.total = self.total.saturating_add(by.unwrap_or(0));
        by.is_some()
    }

    fn set(&mut self, value: Option<f64>) -> bool {
        self.gauge = value.unwrap_or(0.0);
        value.is_some()
    }

    fn count(&mut self, hist: &Hist) {
        let mine = self.counts.get_or_insert_default();
        let mut from = 0;
        for (i, count) in mine.iter_mut().enumerate() {
            let to = BOUNDS_NS.get(i).map_or(hist.counts().len(), |b| index(*b));
            *count += hist.counts()[from..to].iter().sum::<u64>();
            from = to;
        }
    }
}

/// A host without vCPUs withholds nothing: 0.
fn pressure(cells: &impl Cells, row: usize) -> Option<f64> {
    let ready = cells.int("vm_ready_ns", row)?;
    let whole = cells
        .int("window_ns", row)?
        .checked_mul(cells.int("vcpus", row)?)?;
    Some(match whole {
        ..=0 => 0.0,
        whole => (ready as f64 / whole as f64).clamp(0.0, 1.0),
    })
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Cells for Chunk {
    fn rows(&self) -> usize {
        Self::rows(self)
    }

    fn int(&self, column: &str, row: usize) -> Option<i64> {
        match self.column(column)? {
            ColumnData::Int(values) => *values.get(row)?,
            _ => None,
        }
    }

    fn float(&self, column: &str, row: usize) -> Option<f64> {
        match self.column(column)? {
            ColumnData::Float(values) => *values.get(row)?,
            ColumnData::Int(values) => values.get(row)?.map(|v| v as f64),
            _ => None,
        }
    }

    fn text(&self, column: &str, row: usize) -> Option<&str> {
        match self.column(column)? {
            ColumnData::Text(values) => values.get(row)?.as_deref(),
            _ => None,
        }
    }

    fn bytes(&self, column: &str, row: usize) -> Option<&[u8]> {
        match self.column(column)? {
            ColumnData::Bytes(values) => values.get(row)?.as_deref(),
            _ => None,
        }
    }
}

impl Chunk {
    fn column(&self, name: &str) -> Option<&ColumnData> {
        self.columns.get(self.table.position(name)?)
    }
}

#[cfg(test)]
mod tests;

//! From acked rows to requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arrow::array::RecordBatch;
use headroom_core::metric::TABLES;
use headroom_core::series::{Cells as _, Subject, Totals};
use prost::Message as _;

use super::cells::Table;
use super::send::Request;
use super::wire::{Label, Sample, TimeSeries, WriteRequest};
use crate::metrics::Sent;

/// Samples of one request; receivers expect some thousands.
const REQUEST: usize = 5000;
/// Samples that are sent before their time.
const FULL: usize = 50_000;
/// A VM or host that is silent for so long is forgotten, s.
const FORGET: i64 = 3600;

/// Counters of the series, and the samples that wait.
pub struct Gatherer {
    totals: Totals,
    /// Time of the last row by table and subject, ms; and when it came, s.
    last: HashMap<(usize, String, String), (i64, i64)>,
    waiting: BTreeMap<Vec<Label>, Vec<Sample>>,
    samples: usize,
    began: Instant,
    sent: Arc<Sent>,
}

impl Gatherer {
    /// Without any.
    pub fn new(sent: Arc<Sent>) -> Self {
        Self {
            totals: Totals::default(),
            last: HashMap::new(),
            waiting: BTreeMap::new(),
            samples: 0,
            began: Instant::now(),
            sent,
        }
    }

    /// Whether so much waits that it should be taken at once.
    pub const fn is_full(&self) -> bool {
        self.samples >= FULL
    }

    /// Adds rows by table.
    pub fn add(&mut self, chunks: &[(usize, RecordBatch)]) {
        for (table, rows) in chunks {
            let rows = Table(rows);
            // Within a batch, rows may stand in any order of time.
            let mut order: Vec<usize> = (0..rows.rows()).collect();
            order.sort_by_key(|row| rows.time(*row));
            for row in order {
                self.row(*table, &rows, row);
            }
        }
    }

    fn row(&mut self, table: usize, rows: &Table<'_>, row: usize) {
        let now = i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX);
        let ms = rows.time(row).div_euclid(1000);
        let text = |name| rows.text(name, row).unwrap_or_default().to_owned();
        let key = (table, text("host"), text("vm_id"));
        let last = self.last.insert(key.clone(), (ms, now)).map(|(ms, _)| ms);
        let declared = TABLES[table];
        let Some(subject) = self.totals.add(declared, rows, row, now) else {
            return;
        };
        let labels = labels(subject);
        let mut made = 0;
        // A second row of one window, as of a VM that restarted in it, adds to
        // the sample; an older one is no news to the receiver.
        let stale = last.is_some_and(|last| last > ms);
        subject.samples_of(declared, &mut |sample| {
            if stale {
                self.sent.stale.fetch_add(1, Relaxed);
                return;
            }
            let series = named(&labels, sample.metric.name, sample.suffix, sample.le);
            let sample = Sample {
                value: sample.value,
                timestamp: ms,
            };
            let samples = self.waiting.entry(series).or_default();
            match samples.last_mut() {
                Some(same) if same.timestamp == ms => *same = sample,
                // It was sent already, with the first row's value.
                None if last == Some(ms) => {
                    self.sent.stale.fetch_add(1, Relaxed);
                }
                _ => {
                    samples.push(sample);
                    made += 1;
                }
            }
        });
        self.samples += made;
        if stale {
            self.last.insert(key, (last.unwrap_or(ms), now));
        }
    }

    /// The samples that wait, as requests.
    pub fn take(&mut self) -> Vec<Request> {
        let now = i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.totals.retire(now - FORGET);
        self.last.retain(|_, (_, came)| *came >= now - FORGET);
        self.samples = 0;
        let mut requests = Vec::new();
        let (mut part, mut samples) = (WriteRequest::default(), 0);
        for (labels, values) in std::mem::take(&mut self.waiting) {
            if values.is_empty() {
                continue;
            }
            samples += values.len();
            part.timeseries.push(TimeSeries {
                labels,
                samples: values,
            });
            if samples >= REQUEST {
                requests.extend(request(&std::mem::take(&mut part), samples));
                samples = 0;
            }
        }
        if samples > 0 {
            requests.extend(request(&part, samples));
        }
        requests
    }
}

fn request(part: &WriteRequest, samples: usize) -> Option<Request> {
    // It fails on more than 4 GiB only.
    let body = snap::raw::Encoder::new()
        .compress_vec(&part.encode_to_vec())
        .ok()?;
    Some(Request {
        body: body.into(),
        samples: samples as u64,
    })
}

/// Labels of a VM or host, with those that a scrape of its agent would add.
fn labels(subject: &Subject) -> Vec<(&'static str, String)> {
    let mut labels = vec![("job", "headroom".to_owned())];
    for (name, value) in subject.labels() {
        if name == "host" {
            labels.push(("instance", value.to_owned()));
        }
        labels.push((name, value.to_owned()));
    }
    labels
}

fn named(
    labels: &[(&'static str, String)],
    name: &str,
    suffix: &str,
    le: Option<&str>,
) -> Vec<Label> {
    let label = |name: &str, value: String| Label {
        name: name.into(),
        value,
    };
    let mut all = vec![label("__name__", format!("{name}{suffix}"))];
    all.extend(le.map(|le| label("le", le.into())));
    let filled = labels.iter().filter(|(_, value)| !value.is_empty());
    all.extend(filled.map(|(name, value)| label(name, value.clone())));
    all.sort();
    all
}

//! How long rows are kept, and what they take.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::ScalarValue;
use headroom_core::metric::Table;
use headroom_core::rollup::{kept_long, stored};

use super::{DataFile, Exchange, Snapshot, Store};
use crate::Error;

/// A table that spans less says nothing about a day, µs.
const LEAST_SPAN_US: i64 = 3_600_000_000;
const DAY_US: f64 = 86_400e6;

/// How long rows are kept after their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// As they were sent.
    pub raw: Duration,
    /// Roll-ups, and the tables of few rows that are read with them.
    pub rollups: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self {
            raw: 7 * day,
            rollups: 365 * day,
        }
    }
}

impl Keep {
    /// For a table.
    pub fn of(&self, table: &Table) -> Duration {
        if kept_long(table) {
            self.rollups
        } else {
            self.raw
        }
    }
}

/// What a table takes on the disk, memory left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Its name.
    pub table: &'static str,
    /// Bytes of its live files.
    pub bytes: u64,
    /// Rows in them.
    pub rows: u64,
    /// Times of its first and last row, µs since 1970 UTC; `None` without rows.
    pub span_us: Option<(i64, i64)>,
    /// Bytes of one day of rows; `None` below an hour of them.
    pub bytes_per_day: Option<f64>,
    /// Bytes once rows are as old as they may become.
    pub predicted_bytes: Option<f64>,
    /// How long rows are kept.
    pub keep: Duration,
}

/// What every table takes.
#[expect(clippy::cast_precision_loss, reason = "bytes and µs of a prediction")]
pub fn usage(snapshot: &Snapshot, keep: &Keep) -> Vec<Usage> {
    let of = |(table, rows): (&&'static Table, &super::TableRows)| {
        let bytes = rows.files.iter().map(|f| f.size).sum();
        let spans = || rows.files.iter().filter_map(|f| span(f));
        let span_us = spans().map(|s| s.0).min().zip(spans().map(|s| s.1).max());
        let days = span_us.filter(|(from, to)| to - from >= LEAST_SPAN_US);
        let days = days.map(|(from, to)| (to - from) as f64 / DAY_US);
        let keep = keep.of(table);
        let bytes_per_day = days.map(|days| bytes as f64 / days);
        Usage {
            table: table.name,
            bytes,
            rows: rows.files.iter().map(|f| f.bounds.rows).sum(),
            span_us,
            bytes_per_day,
            predicted_bytes: bytes_per_day.map(|b| b * keep.as_secs_f64() / 86_400.0),
            keep,
        }
    };
    stored().iter().zip(&snapshot.tables).map(of).collect()
}

impl Store {
    /// The same store with these times.
    pub const fn keeping(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// How long rows are kept.
    pub const fn keep(&self) -> Keep {
        self.keep
    }

    /// Live files of a table whose newest row is older than that time, µs
    /// since 1970 UTC.
    pub fn older(&self, table: usize, before_us: i64) -> Vec<Arc<DataFile>> {
        let files = &self.snapshot.load().tables[table].files;
        let old = |f: &&Arc<DataFile>| span(f).is_some_and(|(_, to)| to < before_us);
        files.iter().filter(old).cloned().collect()
    }

    /// Takes files out of a table for good, in one commit. They are deleted as
    /// replaced ones are.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub async fn retire(&self, table: usize, files: &[Arc<DataFile>]) -> Result<(), Error> {
        self.exchange(table, files, Vec::new(), Exchange::Rows)
            .await
    }

    /// Keeps a table's log short, see [`super::TableLog::shorten`].
    ///
    /// # Errors
    /// The log can't be read or written.
    pub async fn shorten(&self, table: usize, keep: Duration) -> Result<(), Error> {
        let _alone = self.flush.lock().await;
        self.logs[table].shorten(keep).await
    }
}

/// Times of a file's first and last row, µs since 1970 UTC.
fn span(file: &DataFile) -> Option<(i64, i64)> {
    match file.bounds.columns.first()?.as_ref()? {
        (
            ScalarValue::TimestampMicrosecond(Some(from), _),
            ScalarValue::TimestampMicrosecond(Some(to), _),
        ) => Some((*from, *to)),
        _ => None,
    }
}

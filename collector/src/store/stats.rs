//! Bounds of a file's columns: Delta's `stats` text, and file skipping.

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray as _;
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use headroom_core::metric::{Kind, Table};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest text that goes into the bounds: longer ones (payloads) never serve
/// to skip a file and would bloat the table's log.
const MAX_TEXT: usize = 64;

/// Number of rows and the bounds of each column, in the table's order; `None`
/// where unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Rows in the file.
    pub rows: u64,
    /// Smallest and largest value by column.
    pub columns: Vec<Option<(ScalarValue, ScalarValue)>>,
}

impl Bounds {
    /// Bounds of rows.
    pub fn of(table: &Table, rows: &RecordBatch) -> Self {
        let columns = table
            .columns
            .iter()
            .zip(rows.columns())
            .map(|(c, array)| match c.kind {
                Kind::Time => {
                    let a = array.as_primitive::<TimestampMicrosecondType>();
                    min(a)
                        .zip(max(a))
                        .map(|(lo, hi)| (instant(lo), instant(hi)))
                }
                Kind::Int => {
                    let a = array.as_primitive::<Int64Type>();
                    min(a).zip(max(a)).map(|(lo, hi)| (lo.into(), hi.into()))
                }
                Kind::Float => {
                    let a = array.as_primitive::<Float64Type>();
                    let finite = |v: &(f64, f64)| v.0.is_finite() && v.1.is_finite();
                    min(a)
                        .zip(max(a))
                        .filter(finite)
                        .map(|(lo, hi)| (lo.into(), hi.into()))
                }
                Kind::Text => {
                    let a = array.as_string::<i32>();
                    let short = |v: &(&str, &str)| v.0.len() <= MAX_TEXT && v.1.len() <= MAX_TEXT;
                    min_string(a)
                        .zip(max_string(a))
                        .filter(short)
                        .map(|(lo, hi)| (lo.into(), hi.into()))
                }
                Kind::Hist => None,
            });
        Self {
            rows: rows.num_rows() as u64,
            columns: columns.collect(),
        }
    }

    /// Takes in the bounds of further rows of the same table.
    pub fn widen(&mut self, other: Self) {
        if self.rows == 0 {
            *self = other;
            return;
        }
        self.rows += other.rows;
        for (mine, theirs) in self.columns.iter_mut().zip(other.columns) {
            // Unknown in one part is unknown in the whole; NULLs alone have no
            // bounds either, and are never looked for by them.
            *mine = mine.take().zip(theirs).map(|((lo, hi), (low, high))| {
                let lo = if low < lo { low } else { lo };
                let hi = if high > hi { high } else { hi };
                (lo, hi)
            });
        }
    }

    /// As Delta's `stats`.
    pub fn to_json(&self, table: &Table) -> String {
        let (mut least, mut greatest) = (Map::new(), Map::new());
        for (column, bounds) in table.columns.iter().zip(&self.columns) {
            let Some((lo, hi)) = bounds else { continue };
            if let (Some(lo), Some(hi)) = (value(lo, 0), value(hi, 999)) {
                least.insert(column.name.into(), lo);
                greatest.insert(column.name.into(), hi);
            }
        }
        json!({ "numRecords": self.rows, "minValues": least, "maxValues": greatest, "nullCount": {} }).to_string()
    }

    /// From Delta's `stats`; what can't be read is unknown.
    pub fn from_json(table: &Table, text: Option<&str>) -> Self {
        let stats: Value = text
            .and_then(|t| serde_json::from_str(t).ok())
            .unwrap_or_default();
        let columns = table.columns.iter().map(|c| {
            let side = |name: &str| scalar(c.kind, stats.get(name)?.get(c.name)?);
            side("minValues").zip(side("maxValues"))
        });
        Self {
            rows: stats.get("numRecords").and_then(Value::as_u64).unwrap_or(0),
            columns: columns.collect(),
        }
    }
}

fn instant(us: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))
}

/// Delta keeps times in milliseconds: the upper bound is rounded up.
fn value(v: &ScalarValue, round: i64) -> Option<Value> {
    match v {
        ScalarValue::TimestampMicrosecond(Some(us), _) => {
            let ms = us.saturating_add(round).div_euclid(1000);
            let t = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
            t.format(&Rfc3339).ok().map(Value::from)
        }
        ScalarValue::Int64(Some(v)) => Some(json!(v)),
        ScalarValue::Float64(Some(v)) => Some(json!(v)),
        ScalarValue::Utf8(Some(v)) => Some(json!(v)),
        _ => None,
    }
}

fn scalar(kind: Kind, v: &Value) -> Option<ScalarValue> {
    match kind {
        Kind::Time => {
            let t = OffsetDateTime::parse(v.as_str()?, &Rfc3339).ok()?;
            i64::try_from(t.unix_timestamp_nanos() / 1000)
                .ok()
                .map(instant)
        }
        Kind::Int => v.as_i64().map(Into::into),
        Kind::Float => v.as_f64().map(Into::into),
        Kind::Text => v.as_str().map(Into::into),
        Kind::Hist => None,
    }
}

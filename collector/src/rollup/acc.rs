//! Values on their way from the windows of a step to its one row.

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use headroom_core::batch::ColumnData;
use headroom_core::hist::Hist;

use super::plan::Op;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unavailable.
    Null,
    /// Number or time, µs.
    Int(i64),
    /// Number.
    Float(f64),
    /// Text.
    Text(String),
}

impl Value {
    /// The value in a row of an array.
    pub fn of(array: &ArrayRef, row: usize) -> Self {
        if array.is_null(row) {
            return Self::Null;
        }
        match array.data_type() {
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().value(row).to_owned()),
            DataType::Timestamp(..) => {
                Self::Int(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            _ => Self::Null,
        }
    }

    /// Whether a row of an array holds this value; makes no copy of a text.
    pub fn is(&self, array: &ArrayRef, row: usize) -> bool {
        match self {
            Self::Text(text) => array.is_valid(row) && array.as_string::<i32>().value(row) == text,
            other => *other == Self::of(array, row),
        }
    }
}

/// What was gathered of one column.
#[derive(Debug)]
pub enum Acc {
    /// For [`Op::Key`], [`Op::Last`], [`Op::Max`] and [`Op::Min`].
    One(Value),
    /// For sums and counts.
    Sum(Option<i64>),
    /// For [`Op::Merge`]; boxed, since one takes 1.5 KiB.
    Hist(Option<Box<Hist>>),
    /// For [`Op::Mean`]: sum of value times weight, sum of weights.
    Mean(f64, f64),
    /// For what is told at the end.
    Later,
}

impl Acc {
    /// Nothing gathered yet.
    pub const fn new(op: Op) -> Self {
        match op {
            Op::Key(_) | Op::Last(_) | Op::Max(_) | Op::Min(_) => Self::One(Value::Null),
            Op::Count | Op::Sum(_) | Op::Product(..) | Op::Known(..) => Self::Sum(None),
            Op::Merge(_) => Self::Hist(None),
            Op::Mean(..) => Self::Mean(0.0, 0.0),
            Op::End | Op::Start | Op::Ratio(..) => Self::Later,
        }
    }

    /// Takes in one row. Bytes that are no histogram count as none: they were
    /// checked when they came.
    pub fn add(&mut self, op: Op, columns: &[ArrayRef], row: usize) {
        let int = |i: usize| number(&columns[i], row);
        match (self, op) {
            (Self::One(v), Op::Key(i) | Op::Last(i))
                if columns[i].is_valid(row) && !v.is(&columns[i], row) =>
            {
                *v = Value::of(&columns[i], row);
            }
            (Self::One(v), Op::Max(i)) => extreme(v, Value::of(&columns[i], row), true),
            (Self::One(v), Op::Min(i)) => extreme(v, Value::of(&columns[i], row), false),
            (Self::Sum(s), Op::Count) => plus(s, Some(1)),
            (Self::Sum(s), Op::Sum(i)) => plus(s, int(i)),
            (Self::Sum(s), Op::Product(a, b)) => {
                plus(s, int(a).zip(int(b)).map(|(a, b)| a.saturating_mul(b)));
            }
            // 0 and not NULL where no window tells: none of the time is known.
            (Self::Sum(s), Op::Known(of, weight)) => {
                plus(
                    s,
                    Some(
                        int(weight)
                            .filter(|_| columns[of].is_valid(row))
                            .unwrap_or(0),
                    ),
                );
            }
            (Self::Mean(sum, weights), Op::Mean(of, weight)) => {
                if let (Some(v), Some(w)) = (float(&columns[of], row), float(&columns[weight], row))
                {
                    *sum += v * w;
                    *weights += w;
                }
            }
            (Self::Hist(sum), Op::Merge(i)) if columns[i].is_valid(row) => {
                if let Ok(hist) = Hist::decode(columns[i].as_binary::<i32>().value(row)) {
                    sum.get_or_insert_default().merge(&hist);
                }
            }
            _ => {}
        }
    }

    /// Appends the result to a column of the roll-up.
    pub fn append(self, to: &mut ColumnData) {
        let value = match self {
            Self::Hist(hist) => {
                if let ColumnData::Bytes(v) = to {
                    v.push(hist.map(|h| h.encode()));
                }
                return;
            }
            Self::One(value) => value,
            Self::Sum(sum) => sum.map_or(Value::Null, Value::Int),
            Self::Mean(sum, weights) if weights > 0.0 => Value::Float(sum / weights),
            Self::Mean(..) | Self::Later => Value::Null,
        };
        push(to, value);
    }
}

/// Appends a value, or NULL where it is of another type.
pub fn push(to: &mut ColumnData, value: Value) {
    match (to, value) {
        (ColumnData::Int(v), Value::Int(i)) => v.push(Some(i)),
        (ColumnData::Int(v), _) => v.push(None),
        (ColumnData::Float(v), Value::Float(f)) => v.push(Some(f)),
        (ColumnData::Float(v), _) => v.push(None),
        (ColumnData::Text(v), Value::Text(t)) => v.push(Some(t)),
        (ColumnData::Text(v), _) => v.push(None),
        (ColumnData::Bytes(v), _) => v.push(None),
    }
}

fn number(array: &ArrayRef, row: usize) -> Option<i64> {
    match Value::of(array, row) {
        Value::Int(v) => Some(v),
        _ => None,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "means: 53 bits of a value or of a weight in ns are enough"
)]
fn float(array: &ArrayRef, row: usize) -> Option<f64> {
    match Value::of(array, row) {
        Value::Int(v) => Some(v as f64),
        Value::Float(v) => Some(v),
        _ => None,
    }
}

fn plus(sum: &mut Option<i64>, value: Option<i64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn extreme(best: &mut Value, value: Value, greatest: bool) {
    let better = match (&*best, &value) {
        (_, Value::Null) => false,
        (Value::Null, _) => true,
        (Value::Int(a), Value::Int(b)) => (b > a) == greatest && a != b,
        (Value::Float(a), Value::Float(b)) => (b > a) == greatest && b.is_finite(),
        _ => false,
    };
    if better {
        *best = value;
    }
}

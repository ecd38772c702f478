//! Windows in, rows of a roll-up out, in memory of one step of one group.
//!
//! The source comes in its table's order, whose last column is the time: the
//! rows of a group stand together and its steps follow each other, so what is
//! open at any moment is one step of one group.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::metric::Roll;
use headroom_core::rollup::{GAP_WINDOWS, Rollup, Step};

use super::acc::{Acc, Value, push};
use super::plan::{Op, ops};
use crate::store::hour_of;
use crate::{Error, schema};

/// Makes one roll-up of some hours.
pub struct Fold {
    rollup: &'static Rollup,
    hours: BTreeSet<i64>,
    ops: Vec<Op>,
    /// Keys that sort the source, and those that do not.
    sorted: Vec<usize>,
    others: Vec<usize>,
    window: usize,
    open: Vec<Open>,
    done: Chunk,
}

/// One row in the making.
struct Open {
    sorted: Vec<Value>,
    others: Vec<Value>,
    step: i64,
    from_us: i64,
    until_us: i64,
    accs: Vec<Acc>,
    /// Of a stay: a gap came after it.
    over: bool,
}

/// One row of the source.
struct Row<'a> {
    columns: &'a [ArrayRef],
    at: usize,
    us: i64,
    window_us: i64,
    step: i64,
}

impl Fold {
    /// For the rows of those hours.
    ///
    /// # Errors
    /// The declarations contradict each other: a bug.
    pub fn new(rollup: &'static Rollup, hours: BTreeSet<i64>) -> Result<Self, Error> {
        let source = rollup.source;
        let failed = Error::table("roll up", source.name);
        let unclear = "its declaration does not tell how";
        let Some((ops, window)) = ops(rollup).zip(source.position("window_ns")) else {
            return Err(failed(unclear));
        };
        let is_key = |i: &usize| source.columns[*i].roll == Roll::Key;
        let keys = (0..source.columns.len()).filter(is_key);
        let (sorted, others) = keys.partition(|i| source.sort.contains(&source.columns[*i].name));
        Ok(Self {
            rollup,
            hours,
            ops,
            sorted,
            others,
            window,
            open: Vec::new(),
            done: Chunk::new(rollup.table),
        })
    }

    /// Takes in rows of the source, in its order.
    pub fn add(&mut self, rows: &RecordBatch) {
        let columns = rows.columns();
        let times = columns[0]
            .as_primitive::<TimestampMicrosecondType>()
            .values();
        let windows = columns[self.window].as_primitive::<Int64Type>().values();
        for (at, us) in times.iter().copied().enumerate() {
            if self.hours.contains(&hour_of(us)) {
                let step = match self.rollup.step {
                    Step::Length(length) => (us - 1).div_euclid(length),
                    Step::Stay => hour_of(us),
                };
                self.add_row(&Row {
                    columns,
                    at,
                    us,
                    window_us: windows[at] / 1000,
                    step,
                });
            }
        }
    }

    fn add_row(&mut self, row: &Row<'_>) {
        if let Some(open) = self.open.first()
            && (open.step != row.step || !row.has(&open.sorted, &self.sorted))
        {
            self.close();
        }
        let stay = self.rollup.step == Step::Stay;
        let others = &self.others;
        let mut open = self
            .open
            .iter_mut()
            .rev()
            .find(|o| !o.over && row.has(&o.others, others));
        if let Some(gone) = &mut open
            && stay
            && row.us - row.window_us - gone.until_us > GAP_WINDOWS * row.window_us
        {
            gone.over = true;
            open = None;
        }
        let at = match open {
            Some(open) => open,
            None => {
                let begun = self.begin(row);
                self.open.push(begun);
                let last = self.open.len() - 1;
                &mut self.open[last]
            }
        };
        at.until_us = row.us;
        for (acc, op) in at.accs.iter_mut().zip(&self.ops) {
            acc.add(*op, row.columns, row.at);
        }
    }

    fn begin(&self, row: &Row<'_>) -> Open {
        let values = |of: &[usize]| {
            of.iter()
                .map(|i| Value::of(&row.columns[*i], row.at))
                .collect()
        };
        Open {
            sorted: values(&self.sorted),
            others: values(&self.others),
            step: row.step,
            from_us: row.us - row.window_us,
            until_us: row.us,
            accs: self.ops.iter().map(|op| Acc::new(*op)).collect(),
            over: false,
        }
    }

    /// Ends the rows in the making.
    fn close(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        open.sort_by_key(|o| o.until_us);
        for row in open {
            let end = match self.rollup.step {
                Step::Length(length) => (row.step + 1) * length,
                Step::Stay => row.until_us,
            };
            let columns = self.done.columns.iter_mut().zip(&self.ops).zip(row.accs);
            for ((column, op), acc) in columns {
                match op {
                    Op::End => push(column, Value::Int(end)),
                    Op::Start => push(column, Value::Int(row.from_us)),
                    _ => acc.append(column),
                }
            }
            self.divide();
        }
    }

    /// Fills in the ratios of the last row.
    fn divide(&mut self) {
        for (at, op) in self.ops.iter().enumerate() {
            let Op::Ratio(over, under) = *op else {
                continue;
            };
            let ratio = last(&self.done.columns[over])
                .zip(last(&self.done.columns[under]).filter(|v| *v > 0.0))
                .map(|(over, under)| over / under);
            if let ColumnData::Float(v) = &mut self.done.columns[at]
                && let Some(last) = v.last_mut()
            {
                *last = ratio;
            }
        }
    }

    /// The rows that are whole, once there are that many; all at the `end`.
    ///
    /// # Errors
    /// The declarations contradict each other: a bug.
    pub fn take(&mut self, least: usize, end: bool) -> Result<Option<RecordBatch>, Error> {
        if end {
            self.close();
        }
        let rows = self.done.rows();
        if rows == 0 || (rows < least && !end) {
            return Ok(None);
        }
        let done = std::mem::replace(&mut self.done, Chunk::new(self.rollup.table));
        schema::made(done).map(Some)
    }
}

impl Row<'_> {
    fn has(&self, values: &[Value], columns: &[usize]) -> bool {
        let mut pairs = values.iter().zip(columns);
        pairs.all(|(v, i)| v.is(&self.columns[*i], self.at))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a quotient of sums of ns: 53 bits are enough"
)]
fn last(column: &ColumnData) -> Option<f64> {
    match column {
        ColumnData::Int(v) => v.last().copied().flatten().map(|v| v as f64),
        ColumnData::Float(v) => v.last().copied().flatten(),
        _ => None,
    }
}

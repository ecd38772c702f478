//! From the declarations of two tables to what is done with each column.

use headroom_core::metric::{Kind, Roll, Table};
use headroom_core::rollup::{Rollup, WINDOWS};

/// How one column of a roll-up comes about. Numbers are positions of columns
/// of the source, those of [`Op::Ratio`] of the roll-up itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// End of the step.
    End,
    /// Start of the first window.
    Start,
    /// Number of rows.
    Count,
    /// The value that all rows of a group have.
    Key(usize),
    /// Latest known value.
    Last(usize),
    /// Sum of the known values.
    Sum(usize),
    /// Sum of products of two columns.
    Product(usize, usize),
    /// Sum of the second where the first is known.
    Known(usize, usize),
    /// Greatest known value.
    Max(usize),
    /// Least known value.
    Min(usize),
    /// Histograms added up.
    Merge(usize),
    /// Mean of the first, weighted by the second.
    Mean(usize, usize),
    /// Quotient of two columns of the result.
    Ratio(usize, usize),
}

/// What makes each column of a roll-up, in its order; `None` where the
/// declarations do not tell: a bug of theirs, which a test looks for.
pub fn ops(rollup: &Rollup) -> Option<Vec<Op>> {
    let columns = rollup.table.columns.iter().enumerate();
    columns
        .map(|(i, _)| op(rollup.source, rollup.table, i))
        .collect()
}

fn op(source: &Table, made: &Table, at: usize) -> Option<Op> {
    let column = made.columns[at];
    let same = source.position(column.name);
    if column.kind == Kind::Time {
        return Some(if at == 0 { Op::End } else { Op::Start });
    }
    if column.name == WINDOWS && same.is_none() {
        return Some(Op::Count);
    }
    match column.roll {
        Roll::Key => same.map(Op::Key),
        Roll::Last => same.map(Op::Last),
        Roll::Merge => same.map(Op::Merge),
        Roll::Min => same.map(Op::Min),
        Roll::Max => same
            .or_else(|| amount(source, column.name, "_max"))
            .map(Op::Max),
        Roll::Sum => same.map(Op::Sum).or_else(|| made_sum(source, column.name)),
        Roll::Mean { weight } => {
            let weight = source.position(weight).or_else(|| window(source));
            Some(Op::Mean(same?, weight?))
        }
        Roll::Ratio { over, under, .. } => {
            Some(Op::Ratio(made.position(over)?, made.position(under)?))
        }
        Roll::Drop | Roll::Amount => None,
    }
}

/// Sums that the source does not have as a column.
fn made_sum(source: &Table, name: &str) -> Option<Op> {
    if let Some(value) = amount(source, name, "_known_ns") {
        return Some(Op::Known(value, window(source)?));
    }
    let product = source.columns.iter().find_map(|c| match c.roll {
        Roll::Ratio { under, times, .. } => Some((under, times?)),
        _ => None,
    });
    let (under, times) = product?;
    Some(Op::Product(
        source.position(under)?,
        source.position(times)?,
    ))
}

fn amount(source: &Table, name: &str, suffix: &str) -> Option<usize> {
    let at = source.position(name.strip_suffix(suffix)?)?;
    (source.columns[at].roll == Roll::Amount).then_some(at)
}

fn window(source: &Table) -> Option<usize> {
    source.position("window_ns")
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_core::rollup::rollups;

    #[test]
    fn every_column_of_every_roll_up_is_made_of_something() {
        for rollup in rollups() {
            let ops = ops(rollup).unwrap_or_else(|| panic!("{}", rollup.table.name));
            let counts = ops.iter().filter(|op| **op == Op::Count).count();
            assert_eq!(
                counts,
                usize::from(!rollup.is_second()),
                "{}",
                rollup.table.name
            );
        }
    }
}

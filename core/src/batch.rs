//! Columns of values on their way from an agent to the store.

use crate::metric::{Kind, Table};

/// Values of one column; `None` is unavailable.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnData {
    /// For [`Kind::Time`] and [`Kind::Int`].
    Int(Vec<Option<i64>>),
    /// For [`Kind::Float`].
    Float(Vec<Option<f64>>),
    /// For [`Kind::Text`].
    Text(Vec<Option<String>>),
    /// For [`Kind::Hist`].
    Bytes(Vec<Option<Vec<u8>>>),
}

impl ColumnData {
    /// An empty column for values of that kind.
    #[must_use]
    pub const fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Time | Kind::Int => Self::Int(Vec::new()),
            Kind::Float => Self::Float(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Hist => Self::Bytes(Vec::new()),
        }
    }

    /// A column of `rows` unavailable values.
    #[must_use]
    pub fn unavailable(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Time | Kind::Int => Self::Int(vec![None; rows]),
            Kind::Float => Self::Float(vec![None; rows]),
            Kind::Text => Self::Text(vec![None; rows]),
            Kind::Hist => Self::Bytes(vec![None; rows]),
        }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Int(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Text(v) => v.len(),
            Self::Bytes(v) => v.len(),
        }
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether values of that kind belong here.
    #[must_use]
    pub const fn holds(&self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::Int(_), Kind::Time | Kind::Int)
                | (Self::Float(_), Kind::Float)
                | (Self::Text(_), Kind::Text)
                | (Self::Bytes(_), Kind::Hist)
        )
    }
}

/// A value that can be appended to a column.
pub trait Cell {
    /// Appends the value. A column of another type is a bug of the table's
    /// declaration and panics.
    fn append(&self, column: &mut ColumnData);
}

macro_rules! cell {
    ($type:ty, $variant:ident) => {
        impl Cell for $type {
            fn append(&self, column: &mut ColumnData) {
                Some(self.clone()).append(column);
            }
        }
        impl Cell for Option<$type> {
            fn append(&self, column: &mut ColumnData) {
                match column {
                    ColumnData::$variant(v) => v.push(self.clone()),
                    other => panic!("column {other:?} does not hold {}", stringify!($type)),
                }
            }
        }
    };
}
cell!(i64, Int);
cell!(f64, Float);
cell!(String, Text);
cell!(Vec<u8>, Bytes);

/// A row of a declared table.
pub trait Row {
    /// The table's declaration.
    const TABLE: &'static Table;
    /// Appends the row to columns in the declaration's order.
    fn append(&self, columns: &mut [ColumnData]);
}

/// Rows of one table, column by column.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The table's declaration.
    pub table: &'static Table,
    /// One entry for each declared column, in order, all of equal length.
    pub columns: Vec<ColumnData>,
}

impl Chunk {
    /// An empty chunk of a table.
    #[must_use]
    pub fn new(table: &'static Table) -> Self {
        let columns = table
            .columns
            .iter()
            .map(|c| ColumnData::empty(c.kind))
            .collect();
        Self { table, columns }
    }

    /// The chunk of some rows.
    #[must_use]
    pub fn of<R: Row>(rows: &[R]) -> Self {
        let mut chunk = Self::new(R::TABLE);
        for row in rows {
            row.append(&mut chunk.columns);
        }
        chunk
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, ColumnData::len)
    }
}

/// What a sender ships at once; (`agent_id`, `epoch`, `seq`) names it for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Stable id of the sender.
    pub agent_id: String,
    /// Host name the rows speak of.
    pub host: String,
    /// Start of the sender's process, µs since 1970 UTC: later is newer.
    pub epoch: u64,
    /// 1, 2, 3 … within the epoch, without gaps.
    pub seq: u64,
    /// When it was closed by the sender's clock, µs since 1970 UTC.
    pub made_at_us: i64,
    /// [`crate::metric::SCHEMA_VERSION`] of the sender.
    pub schema_version: u32,
    /// The rows, at most one chunk a table.
    pub chunks: Vec<Chunk>,
}

impl Batch {
    /// Rows in all chunks.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(Chunk::rows).sum()
    }
}

//! The metric catalogue: every table and column that is stored, declared once.
//!
//! The store's Arrow schema, the wire format, the column comments in SQL and
//! `docs/METRICS.md` are all made from these declarations; nothing is ever
//! inferred from data.

/// Version of the catalogue as a whole. A collector accepts this one and the
/// one before.
pub const SCHEMA_VERSION: u32 = 1;

/// Storage type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Microseconds since 1970-01-01 UTC.
    Time,
    /// Signed 64-bit integer.
    Int,
    /// IEEE 754 double.
    Float,
    /// UTF-8 text.
    Text,
    /// Wait histogram in the encoding of [`crate::hist`].
    Hist,
}

/// Unit of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No unit: names, identifiers, text.
    None,
    /// Point in time, UTC.
    Utc,
    /// Nanoseconds.
    Nanoseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// A fraction, 1.0 = 100 %.
    Ratio,
    /// The unit of the metric named in the row.
    OfMetric,
}

impl Unit {
    /// Symbol for column comments and documentation.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Utc => "UTC",
            Self::Nanoseconds => "ns",
            Self::Seconds => "s",
            Self::Bytes => "B",
            Self::Count => "count",
            Self::Ratio => "ratio",
            Self::OfMetric => "of metric",
        }
    }
}

/// What becomes of a column when the windows of a step become one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// Not kept.
    Drop,
    /// Rows of one value are rolled up apart from those of another.
    Key,
    /// Sum of the values that are known; of integers.
    Sum,
    /// Greatest value that is known.
    Max,
    /// Least value that is known.
    Min,
    /// Latest value that is known.
    Last,
    /// Histograms are added up.
    Merge,
    /// Becomes two columns or three: the mean over time, the greatest value as
    /// `NAME_max`, and for a nullable one the time known as `NAME_known_ns`.
    Amount,
    /// Mean of the known values, each weighted by that column.
    Mean {
        /// Column of the weights, ns.
        weight: &'static str,
    },
    /// Computed again from sums, never averaged: `over / (under * times)`.
    Ratio {
        /// Column whose sum is divided.
        over: &'static str,
        /// Column by whose sum it is divided.
        under: &'static str,
        /// Column by which `under` is multiplied, window by window, before.
        times: Option<&'static str>,
    },
}

/// One stored column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name in SQL.
    pub name: &'static str,
    /// Storage type.
    pub kind: Kind,
    /// Whether a value may be unavailable (NULL, never 0).
    pub nullable: bool,
    /// Unit of the values.
    pub unit: Unit,
    /// What becomes of it in a roll-up.
    pub roll: Roll,
    /// What the value means.
    pub description: &'static str,
}

/// One stored table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name in SQL and of its directory.
    pub name: &'static str,
    /// What one row is.
    pub description: &'static str,
    /// Columns in storage order; the first is always the time of the row.
    pub columns: &'static [Column],
    /// Columns that files are sorted by.
    pub sort: &'static [&'static str],
}

impl Table {
    /// Position of a column, if there is one of that name.
    #[must_use]
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }
}

/// Every table that agents and services send; [`crate::rollup::stored`] has
/// those too that the store makes of them.
pub const TABLES: &[&Table] = &[
    &crate::rows::VCPUS,
    &crate::rows::VMS,
    &crate::rows::HOSTS,
    &crate::rows::EVENTS,
    &crate::rows::FORECASTS,
    &crate::rows::RECOMMENDATION_LOG,
    &crate::rows::VM_DISKS,
    &crate::rows::HOST_DISKS,
    &crate::rows::BLOCK_DROPS,
    &crate::rows::VM_IO,
    &crate::rows::BLAME,
    &crate::rows::CPUS,
    &crate::rows::CPU_OWNERS,
    &crate::rows::VM_CONCURRENCY,
    &crate::rows::VCPU_MOVES,
    &crate::rows::PROBES,
    &crate::rows::TOPOLOGY,
    &crate::rows::TOPOLOGY_NODES,
    &crate::rows::INVENTORY,
    &crate::rows::VM_NETS,
    &crate::rows::HOST_NETS,
    &crate::rows::VM_NUMA,
    &crate::rows::VM_NUMA_NODES,
    &crate::rows::NODES,
    &crate::rows::HOST_NUMA,
    &crate::rows::HOST_TASKS,
    &crate::rows::HOST_STEAL,
    &crate::rows::CPU_STEAL,
    &crate::rows::VM_QUEUES,
    &crate::rows::HOST_MEMORY,
    &crate::rows::VM_MEMORY,
];

/// The table of that name that agents and services send.
#[must_use]
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().copied().find(|t| t.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_is_well_formed() {
        for t in TABLES {
            assert_eq!(t.columns[0].kind, Kind::Time, "{}", t.name);
            for c in t.columns {
                assert!(!c.description.is_empty(), "{}.{}", t.name, c.name);
                assert_eq!(t.columns.iter().filter(|d| d.name == c.name).count(), 1);
            }
            for s in t.sort {
                assert!(t.position(s).is_some(), "{}: sort column {s}", t.name);
            }
        }
    }
}

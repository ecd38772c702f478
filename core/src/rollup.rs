//! Roll-ups: the tables that the store makes of the rows that were sent.
//!
//! They follow from what each column declares ([`Roll`]): nothing about them
//! is written down twice. The roll-up of a roll-up has the same columns, so a
//! day is made of its hours.

use std::sync::LazyLock;

use crate::metric::{Column, Kind, Roll, TABLES, Table, Unit};
use crate::rows::{
    EVENTS, HOST_DISKS, HOST_MEMORY, HOSTS, INVENTORY, RECOMMENDATION_LOG, TOPOLOGY,
    TOPOLOGY_NODES, VCPUS, VM_DISKS, VM_MEMORY, VM_NETS, VM_NUMA, VM_QUEUES, VMS,
};

/// Microseconds of an hour: what is rolled up at once.
pub const HOUR_US: i64 = 3_600_000_000;
/// Name of the column that counts the windows of a step.
pub const WINDOWS: &str = "windows";
/// Windows that may be missing in a stay on one host.
pub const GAP_WINDOWS: i64 = 3;

/// Tables that are rolled up. The others are not: `blame`, `cpus`,
/// `cpu_owners`, `vm_concurrency` and `vcpu_moves` explain a wait of the last
/// days and have no fewer rows at a coarser step (a row for each pair or
/// level); `nodes`, `vm_numa_nodes`, `host_numa`, `host_nets`, `host_tasks`,
/// `host_steal`, `cpu_steal`, `block_drops`, `vm_io` and `probes` are for
/// diagnosis; what is left has rows only on change.
const ROLLED: &[&Table] = &[
    &VMS,
    &VCPUS,
    &HOSTS,
    &VM_DISKS,
    &HOST_DISKS,
    &VM_QUEUES,
    &VM_NUMA,
    &VM_MEMORY,
    &HOST_MEMORY,
    &VM_NETS,
];

/// Tables of few rows that are kept as long as the roll-ups, which are read
/// with them: who a VM belonged to, what a host had, what happened and what
/// was decided.
const KEPT_LONG: &[&Table] = &[
    &EVENTS,
    &RECOMMENDATION_LOG,
    &INVENTORY,
    &TOPOLOGY,
    &TOPOLOGY_NODES,
];

/// What one row of a roll-up covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// That many microseconds; the row's time is their end.
    Length(i64),
    /// A stay of a VM on a host, within an hour.
    Stay,
}

/// A table that the store makes of another one.
#[derive(Clone, Copy, Debug)]
pub struct Rollup {
    /// What is made.
    pub table: &'static Table,
    /// Of what.
    pub source: &'static Table,
    /// Of how much at once.
    pub step: Step,
}

impl Rollup {
    /// Whether it is made of another roll-up.
    #[must_use]
    pub fn is_second(&self) -> bool {
        self.source.position(WINDOWS).is_some()
    }
}

static ROLLUPS: LazyLock<Vec<Rollup>> = LazyLock::new(|| {
    let mut all: Vec<Rollup> = ROLLED.iter().flat_map(|table| steps(table)).collect();
    all.push(Rollup {
        table: &STAYS,
        source: &VMS,
        step: Step::Stay,
    });
    all
});

static STORED: LazyLock<Vec<&'static Table>> = LazyLock::new(|| {
    let made = rollups().iter().map(|rollup| rollup.table);
    TABLES.iter().copied().chain(made).collect()
});

/// Every roll-up; one that is made of another comes after it.
#[must_use]
pub fn rollups() -> &'static [Rollup] {
    &ROLLUPS
}

/// Every table of the store: [`TABLES`], then the roll-ups.
#[must_use]
pub fn stored() -> &'static [&'static Table] {
    &STORED
}

/// Whether a table's rows are kept as long as those of roll-ups.
#[must_use]
pub fn kept_long(table: &Table) -> bool {
    let sent = TABLES.iter().any(|t| t.name == table.name);
    !sent || KEPT_LONG.iter().any(|t| t.name == table.name)
}

/// Stays of VMs on hosts by the hour. View `placement` puts them together.
pub static STAYS: Table = Table {
    name: "vm_stays_1h",
    description: "One stay of one VM on one host, cut at the full hour and at gaps of more than three windows; view placement shows whole stays.",
    columns: &[
        column(
            "ts",
            Kind::Time,
            Unit::Utc,
            Roll::Drop,
            "end of the last window of the stay in this hour",
        ),
        column(
            "host",
            Kind::Text,
            Unit::None,
            Roll::Key,
            "host the VM ran on",
        ),
        column(
            "vm_id",
            Kind::Text,
            Unit::None,
            Roll::Key,
            "stable id of the VM",
        ),
        column(
            "vm_name",
            Kind::Text,
            Unit::None,
            Roll::Last,
            "name of the VM as its platform gives it",
        ),
        column(
            "valid_from",
            Kind::Time,
            Unit::Utc,
            Roll::Drop,
            "start of the first window",
        ),
        column(
            WINDOWS,
            Kind::Int,
            Unit::Count,
            Roll::Sum,
            "windows of the stay",
        ),
        column(
            "window_ns",
            Kind::Int,
            Unit::Nanoseconds,
            Roll::Sum,
            "sum of their lengths",
        ),
    ],
    sort: &["vm_id", "ts"],
};

const fn column(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    roll: Roll,
    description: &'static str,
) -> Column {
    Column {
        name,
        kind,
        nullable: false,
        unit,
        roll,
        description,
    }
}

fn steps(source: &'static Table) -> Vec<Rollup> {
    let of = |source: &'static Table, suffix: &str, text: &str, us: i64| Rollup {
        table: leak(Table {
            name: text_of(format!("{}_{suffix}", base(source))),
            description: text_of(format!(
                "Roll-up of {} over {text}, UTC. {}",
                base(source),
                source_text(source)
            )),
            columns: leak_all(columns(source)),
            sort: source.sort,
        }),
        source,
        step: Step::Length(us),
    };
    let hour = of(source, "1h", "1 hour", HOUR_US);
    vec![
        of(source, "1m", "1 minute", 60_000_000),
        of(source, "5m", "5 minutes", 300_000_000),
        hour,
        of(hour.table, "1d", "1 day", 24 * HOUR_US),
    ]
}

fn base(source: &Table) -> &'static str {
    let name = source.name;
    name.strip_suffix("_1h").unwrap_or(name)
}

fn source_text(source: &'static Table) -> &'static str {
    let text = source.description;
    text.split_once("UTC. ").map_or(text, |(_, of)| of)
}

/// Columns of a table's roll-up.
fn columns(source: &'static Table) -> Vec<Column> {
    if source.position(WINDOWS).is_some() {
        return source.columns.to_vec();
    }
    let mut made = Vec::new();
    for c in source.columns {
        match c.roll {
            _ if c.kind == Kind::Time => made.push(Column {
                description: "end of the step",
                ..*c
            }),
            Roll::Drop => {}
            Roll::Amount => made.extend(amount(c)),
            Roll::Ratio { .. } => made.extend(ratio(c)),
            Roll::Mean { .. } | Roll::Key | Roll::Last | Roll::Sum => made.push(described(c)),
            Roll::Max | Roll::Min | Roll::Merge => made.push(described(c)),
        }
        if c.name == "window_ns" {
            let text = "windows of the step that there are; one that is missing is in no column";
            made.push(column(WINDOWS, Kind::Int, Unit::Count, Roll::Sum, text));
        }
    }
    made
}

fn described(c: &Column) -> Column {
    let prefix = match c.roll {
        Roll::Sum if c.nullable => "sum over the windows that tell: ",
        Roll::Sum => "sum over the windows: ",
        Roll::Max => "greatest: ",
        Roll::Min => "least: ",
        Roll::Last => "latest: ",
        Roll::Merge => "merged: ",
        _ => "",
    };
    with_prefix(c, prefix)
}

fn with_prefix(c: &Column, prefix: &str) -> Column {
    let description = text_of(format!("{prefix}{}", c.description));
    Column { description, ..*c }
}

fn amount(c: &Column) -> Vec<Column> {
    let known = text_of(format!("{}_known_ns", c.name));
    let weight = if c.nullable { known } else { "window_ns" };
    let mut made = vec![
        Column {
            kind: Kind::Float,
            nullable: true,
            roll: Roll::Mean { weight },
            ..with_prefix(c, "mean over time: ")
        },
        Column {
            name: text_of(format!("{}_max", c.name)),
            roll: Roll::Max,
            ..with_prefix(c, "greatest: ")
        },
    ];
    if c.nullable {
        let text = text_of(format!("length of the windows that tell {}", c.name));
        made.push(column(known, Kind::Int, Unit::Nanoseconds, Roll::Sum, text));
    }
    made
}

fn ratio(c: &Column) -> Vec<Column> {
    let Roll::Ratio { over, under, times } = c.roll else {
        return Vec::new();
    };
    let product = times.map(|times| {
        let text = text_of(format!(
            "provisioned: sum over the windows of {under} * {times}"
        ));
        column(
            "provisioned_ns",
            Kind::Int,
            Unit::Nanoseconds,
            Roll::Sum,
            text,
        )
    });
    let under = product.map_or(under, |p| p.name);
    let made = Column {
        nullable: true,
        roll: Roll::Ratio {
            over,
            under,
            times: None,
        },
        description: text_of(format!("{over} / {under} of the step")),
        ..*c
    };
    product.into_iter().chain([made]).collect()
}

// Made once and kept for the life of the process, as what is declared is.
fn text_of(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn leak(table: Table) -> &'static Table {
    Box::leak(Box::new(table))
}

fn leak_all(columns: Vec<Column>) -> &'static [Column] {
    Box::leak(columns.into_boxed_slice())
}

#[cfg(test)]
mod tests;

//! Between wire messages and [`headroom_core::batch`].

use headroom_core::batch::{Batch, Chunk, ColumnData};
use headroom_core::metric::{self, Column, Kind, SCHEMA_VERSION, Table};

use crate::v1;

/// A message that does not fit the metric catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The sender's catalogue is too old or too new.
    #[error("schema version {got} is not accepted: this collector takes {} and {SCHEMA_VERSION}; upgrade the older side", SCHEMA_VERSION.saturating_sub(1).max(1))]
    Version {
        /// Version in the message.
        got: u32,
    },
    /// A batch without its identity.
    #[error("batch has no {0}")]
    Identity(&'static str),
    /// A column whose values do not match its declaration.
    #[error("column {table}.{column}: {problem}")]
    Column {
        /// Table the column belongs to.
        table: &'static str,
        /// Name of the column.
        column: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A batch as read from the wire, with what could not be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The rows of known tables and columns.
    pub batch: Batch,
    /// Rows of tables that this build does not know, left out.
    pub unknown_rows: u64,
}

/// The wire form of a batch.
#[must_use]
pub fn to_wire(batch: &Batch) -> v1::Batch {
    v1::Batch {
        agent_id: batch.agent_id.clone(),
        host: batch.host.clone(),
        epoch: batch.epoch,
        seq: batch.seq,
        made_at_us: batch.made_at_us,
        schema_version: batch.schema_version,
        chunks: batch.chunks.iter().map(chunk_to_wire).collect(),
    }
}

/// Reads a batch from the wire. Unknown tables and columns are left out (a
/// newer sender), absent nullable columns become unavailable (an older one).
///
/// # Errors
/// A batch of an unaccepted version, without identity, or with values that
/// contradict the catalogue.
pub fn from_wire(wire: &v1::Batch) -> Result<Decoded, ConvertError> {
    check_identity(&wire.agent_id, (wire.epoch, wire.seq), wire.schema_version)?;
    let (mut chunks, mut unknown_rows) = (Vec::new(), 0);
    for chunk in &wire.chunks {
        match metric::table(&chunk.table) {
            Some(table) => chunks.push(chunk_from_wire(table, chunk)?),
            None => unknown_rows += u64::from(chunk.rows),
        }
    }
    let batch = Batch {
        agent_id: wire.agent_id.clone(),
        host: wire.host.clone(),
        epoch: wire.epoch,
        seq: wire.seq,
        made_at_us: wire.made_at_us,
        schema_version: wire.schema_version,
        chunks,
    };
    Ok(Decoded {
        batch,
        unknown_rows,
    })
}

/// What every batch must have.
pub(crate) fn check_identity(
    agent_id: &str,
    (epoch, seq): (u64, u64),
    schema_version: u32,
) -> Result<(), ConvertError> {
    let oldest = SCHEMA_VERSION.saturating_sub(1).max(1);
    if !(oldest..=SCHEMA_VERSION).contains(&schema_version) {
        return Err(ConvertError::Version {
            got: schema_version,
        });
    }
    if agent_id.is_empty() {
        return Err(ConvertError::Identity("agent_id"));
    }
    if epoch == 0 || seq == 0 {
        return Err(ConvertError::Identity("epoch or seq"));
    }
    Ok(())
}

fn chunk_to_wire(chunk: &Chunk) -> v1::Chunk {
    let columns = chunk
        .table
        .columns
        .iter()
        .zip(&chunk.columns)
        .map(|(c, d)| column_to_wire(c, d))
        .collect();
    v1::Chunk {
        table: chunk.table.name.into(),
        rows: u32::try_from(chunk.rows()).unwrap_or(u32::MAX),
        columns,
    }
}

fn column_to_wire(column: &Column, data: &ColumnData) -> v1::Column {
    let mut wire = v1::Column {
        name: column.name.into(),
        ..Default::default()
    };
    match data {
        ColumnData::Int(v) => (wire.missing, wire.ints) = split(v),
        ColumnData::Float(v) => (wire.missing, wire.floats) = split(v),
        ColumnData::Text(v) => (wire.missing, wire.texts) = split(v),
        ColumnData::Bytes(v) => (wire.missing, wire.blobs) = split(v),
    }
    wire
}

fn chunk_from_wire(table: &'static Table, wire: &v1::Chunk) -> Result<Chunk, ConvertError> {
    let rows = wire.rows as usize;
    let columns = table.columns.iter().map(|column| {
        let error = |problem| ConvertError::Column {
            table: table.name,
            column: column.name,
            problem,
        };
        match wire.columns.iter().find(|c| c.name == column.name) {
            Some(c) => column_from_wire(column, c, rows).map_err(error),
            // A sender may claim any number of rows for no bytes: bounded by
            // the columns that are really there.
            None if !column.nullable => Err(error("is missing")),
            None => Ok(ColumnData::unavailable(column.kind, rows)),
        }
    });
    // The first column is never nullable, so a lying `rows` fails before
    // anything of that size is allocated.
    Ok(Chunk {
        table,
        columns: columns.collect::<Result<_, _>>()?,
    })
}

fn column_from_wire(
    column: &Column,
    wire: &v1::Column,
    rows: usize,
) -> Result<ColumnData, &'static str> {
    let data = match column.kind {
        Kind::Time | Kind::Int => ColumnData::Int(join(&wire.ints, &wire.missing, rows)?),
        Kind::Float => ColumnData::Float(join(&wire.floats, &wire.missing, rows)?),
        Kind::Text => ColumnData::Text(join(&wire.texts, &wire.missing, rows)?),
        Kind::Hist => ColumnData::Bytes(join(&wire.blobs, &wire.missing, rows)?),
    };
    if !column.nullable && wire.missing.iter().any(|b| *b != 0) {
        return Err("may not be unavailable");
    }
    Ok(data)
}

fn split<T: Clone + Default>(values: &[Option<T>]) -> (Vec<u8>, Vec<T>) {
    let mut missing = Vec::new();
    for (i, _) in values.iter().enumerate().filter(|(_, v)| v.is_none()) {
        missing.resize(values.len().div_ceil(8), 0);
        missing[i / 8] |= 1 << (i % 8);
    }
    (
        missing,
        values
            .iter()
            .map(|v| v.clone().unwrap_or_default())
            .collect(),
    )
}

fn join<T: Clone>(
    values: &[T],
    missing: &[u8],
    rows: usize,
) -> Result<Vec<Option<T>>, &'static str> {
    if values.len() != rows {
        return Err(
            "has another number of values than the chunk has rows, or values of another type",
        );
    }
    if !missing.is_empty() && missing.len() != rows.div_ceil(8) {
        return Err("has a bitmap of another length than its rows");
    }
    let is_missing = |i: usize| missing.get(i / 8).is_some_and(|b| b & (1 << (i % 8)) != 0);
    Ok(values
        .iter()
        .enumerate()
        .map(|(i, v)| (!is_missing(i)).then(|| v.clone()))
        .collect())
}

#[cfg(test)]
mod tests;

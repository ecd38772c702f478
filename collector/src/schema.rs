//! From the metric catalogue to Arrow, and rows on that way.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::metric::{Column, Kind, Table};
use headroom_core::rollup::stored;
use headroom_proto::columns::{Data, Rows, Values};

use crate::Error;

/// Schemas of [`stored`], in its order.
static SCHEMAS: LazyLock<Vec<SchemaRef>> =
    LazyLock::new(|| stored().iter().map(|t| Arc::new(declare(t))).collect());

/// Position of a table in [`stored`].
pub fn index(table: &'static Table) -> usize {
    stored()
        .iter()
        .position(|t| t.name == table.name)
        .unwrap_or_default()
}

/// Arrow schema of the table at that position.
pub fn schema(index: usize) -> SchemaRef {
    Arc::clone(&SCHEMAS[index])
}

/// Arrow type of a kind of column.
pub fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Text => DataType::Utf8,
        Kind::Hist => DataType::Binary,
    }
}

/// Rows as read from the wire in the table's schema; the buffers are handed
/// over, not copied.
///
/// # Errors
/// Columns that contradict the declaration, or a text that is no UTF-8.
pub fn rows(read: Rows) -> Result<RecordBatch, Error> {
    let Rows {
        table,
        rows,
        columns,
    } = read;
    let failed = |source| Error::Rows {
        table: table.name,
        source,
    };
    let arrays = table
        .columns
        .iter()
        .zip(columns)
        .map(|(column, values)| match values {
            Some(values) => array(column.kind, values, rows),
            None => Ok(new_null_array(&data_type(column.kind), rows)),
        });
    let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>().map_err(failed)?;
    RecordBatch::try_new(schema(index(table)), arrays).map_err(failed)
}

/// Rows of a chunk made here, in the table's schema.
///
/// # Errors
/// Columns that contradict the declaration: a bug.
pub fn made(chunk: Chunk) -> Result<RecordBatch, Error> {
    let table = chunk.table;
    let columns = table.columns.iter().zip(chunk.columns);
    let arrays: Vec<ArrayRef> = columns.map(|(c, data)| made_array(c.kind, data)).collect();
    RecordBatch::try_new(schema(index(table)), arrays).map_err(|source| Error::Rows {
        table: table.name,
        source,
    })
}

fn made_array(kind: Kind, data: ColumnData) -> ArrayRef {
    match data {
        ColumnData::Int(v) if kind == Kind::Time => {
            Arc::new(TimestampMicrosecondArray::from(v).with_timezone("UTC"))
        }
        ColumnData::Int(v) => Arc::new(Int64Array::from(v)),
        ColumnData::Float(v) => Arc::new(Float64Array::from(v)),
        ColumnData::Text(v) => Arc::new(StringArray::from(v)),
        ColumnData::Bytes(v) => Arc::new(BinaryArray::from_iter(v)),
    }
}

fn declare(table: &Table) -> Schema {
    let fields: Vec<Field> = table.columns.iter().map(field).collect();
    Schema::new(fields)
}

fn field(column: &Column) -> Field {
    let about = HashMap::from([
        ("unit".to_string(), column.unit.symbol().to_string()),
        ("comment".to_string(), column.description.to_string()),
    ]);
    Field::new(column.name, data_type(column.kind), column.nullable).with_metadata(about)
}

fn array(kind: Kind, values: Values, rows: usize) -> Result<ArrayRef, ArrowError> {
    let nulls = nulls(values.missing, rows);
    Ok(match values.data {
        Data::Int(v) if kind == Kind::Time => {
            Arc::new(TimestampMicrosecondArray::try_new(v.into(), nulls)?.with_timezone("UTC"))
        }
        Data::Int(v) => Arc::new(Int64Array::try_new(v.into(), nulls)?),
        Data::Float(v) => Arc::new(Float64Array::try_new(v.into(), nulls)?),
        Data::Bytes(v) => {
            // Ascending by construction.
            let offsets = OffsetBuffer::new(v.offsets.into());
            let bytes = Buffer::from_vec(v.bytes);
            match kind {
                Kind::Hist => Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?),
                _ => Arc::new(StringArray::try_new(offsets, bytes, nulls)?),
            }
        }
    })
}

/// Arrow sets a bit for each value that is there.
fn nulls(mut missing: Vec<u8>, rows: usize) -> Option<NullBuffer> {
    if missing.iter().all(|b| *b == 0) {
        return None;
    }
    missing.iter_mut().for_each(|b| *b = !*b);
    let bits = BooleanBuffer::new(Buffer::from_vec(missing), 0, rows);
    Some(NullBuffer::new(bits))
}

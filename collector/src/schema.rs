//! From the metric catalogue to Arrow, and rows on that way.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::metric::{Column, Kind, Table};
use headroom_core::rollup::stored;

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

/// Rows of a chunk in the table's schema.
///
/// # Errors
/// Columns that contradict the declaration; `headroom_proto::convert` lets
/// none of those in.
pub fn rows(chunk: Chunk) -> Result<RecordBatch, Error> {
    let table = chunk.table;
    let arrays: Vec<ArrayRef> = table
        .columns
        .iter()
        .zip(chunk.columns)
        .map(|(c, data)| array(c.kind, data))
        .collect();
    RecordBatch::try_new(schema(index(table)), arrays).map_err(|source| Error::Rows {
        table: table.name,
        source,
    })
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

fn array(kind: Kind, data: ColumnData) -> ArrayRef {
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

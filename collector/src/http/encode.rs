//! Rows as JSON, NDJSON, CSV or an Arrow stream, batch by batch.
//!
//! In text, times are RFC 3339 in UTC to the µs, histograms base64, NULL is
//! `null` (in CSV: nothing), and a number that JSON can't say (NaN, infinite)
//! is `null` too.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::query::QueryError;

/// Times to the µs, UTC.
const RFC_3339: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One array of objects.
    Json,
    /// An object a line.
    Ndjson,
    /// RFC 4180 with a header.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    /// Of `?format=`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "ndjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "arrow" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// Of an `Accept`: the first that is known, else JSON.
    pub fn accepted(accept: &str) -> Self {
        let mut kinds = accept.split(',').filter_map(|kind| {
            match kind.split(';').next().unwrap_or_default().trim() {
                "application/json" => Some(Self::Json),
                "application/x-ndjson" | "application/jsonl" => Some(Self::Ndjson),
                "text/csv" => Some(Self::Csv),
                "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
                _ => None,
            }
        });
        kinds.next().unwrap_or(Self::Json)
    }

    /// For the answer's `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Writes the rows of one answer.
pub struct Encoder {
    format: Format,
    header: Vec<u8>,
    any: bool,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl Encoder {
    /// For rows of that schema.
    ///
    /// # Errors
    /// The format has no way to say a column's type.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self, QueryError> {
        let mut arrow = None;
        let header = match format {
            Format::Json => b"[".to_vec(),
            Format::Ndjson => Vec::new(),
            Format::Csv => csv(&RecordBatch::new_empty(Arc::clone(schema)), true)?,
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(failed)?;
                let header = std::mem::take(writer.get_mut());
                arrow = Some(writer);
                header
            }
        };
        Ok(Self {
            format,
            header,
            any: false,
            arrow,
        })
    }

    /// What comes before the rows.
    pub fn head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.header)
    }

    /// Some rows.
    ///
    /// # Errors
    /// A value that the format can't say.
    pub fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if let Some(writer) = &mut self.arrow {
            writer.write(rows).map_err(failed)?;
            return Ok(std::mem::take(writer.get_mut()));
        }
        if self.format == Format::Csv {
            return csv(&as_text(rows, false).map_err(failed)?, false);
        }
        let lines = ndjson(&as_text(rows, true).map_err(failed)?).map_err(failed)?;
        if self.format == Format::Ndjson {
            return Ok(lines);
        }
        // A line break within a value is escaped: each is the end of a row.
        let mut array = Vec::with_capacity(lines.len() + rows.num_rows());
        for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if std::mem::replace(&mut self.any, true) {
                array.extend_from_slice(b",\n");
            }
            array.extend_from_slice(line);
        }
        Ok(array)
    }

    /// What comes after the rows.
    ///
    /// # Errors
    /// None that is known.
    pub fn tail(&mut self) -> Result<Vec<u8>, QueryError> {
        Ok(match &mut self.arrow {
            Some(writer) => {
                writer.finish().map_err(failed)?;
                std::mem::take(writer.get_mut())
            }
            None if self.format == Format::Json => b"]\n".to_vec(),
            None => Vec::new(),
        })
    }
}

fn failed(error: ArrowError) -> QueryError {
    QueryError::Sql(format!("the rows can't be written in this format: {error}"))
}

fn ndjson(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let builder = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_tz_format(RFC_3339.into());
    let mut writer = builder.build::<_, LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn csv(rows: &RecordBatch, header: bool) -> Result<Vec<u8>, QueryError> {
    let builder = arrow::csv::WriterBuilder::new()
        .with_header(header)
        .with_timestamp_tz_format(RFC_3339.into());
    let mut writer = builder.build(Vec::new());
    writer.write(rows).map_err(failed)?;
    Ok(writer.into_inner())
}

/// The same rows in types that have one way to be written.
fn as_text(rows: &RecordBatch, json: bool) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let columns: Result<Vec<ArrayRef>, ArrowError> =
        rows.columns().iter().map(|c| column(c, json)).collect();
    let columns = columns?;
    let fields = schema.fields().iter().zip(&columns);
    let fields: Vec<Field> = fields
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn column(column: &ArrayRef, json: bool) -> Result<ArrayRef, ArrowError> {
    Ok(match column.data_type() {
        // By offset: names of time zones need a table that is not linked. A
        // time without a zone is taken for UTC, as SQL does here.
        DataType::Timestamp(..) => {
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
            cast(column, &utc)?
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => {
            let bytes = cast(column, &DataType::Binary)?;
            let texts = bytes.as_binary::<i32>().iter();
            let texts: StringArray = texts
                .map(|b| b.map(|b| BASE64_STANDARD.encode(b)))
                .collect();
            Arc::new(texts)
        }
        DataType::Float64 if json => {
            let finite = |v: f64| v.is_finite().then_some(v);
            let values = column.as_primitive::<Float64Type>();
            Arc::new(values.unary_opt::<_, Float64Type>(finite))
        }
        DataType::Float32 if json => {
            let finite = |v: f32| v.is_finite().then_some(v);
            let values = column.as_primitive::<Float32Type>();
            Arc::new(values.unary_opt::<_, Float32Type>(finite))
        }
        _ => Arc::clone(column),
    })
}

#[cfg(test)]
mod tests;

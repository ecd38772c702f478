//! Rows of the engine as rows of the protocol.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_pg::datatypes::arrow_schema_to_pg_fields;
use arrow_pg::encode_recordbatch;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldInfo, QueryResponse};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;

use super::error;
use crate::query::Answer;

/// Columns as the protocol describes them.
pub fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    if let Format::Individual(codes) = format
        && codes.len() != schema.fields().len()
    {
        let text = format!(
            "{} result formats for {} columns",
            codes.len(),
            schema.fields().len()
        );
        return Err(error::error("08P01", text));
    }
    arrow_schema_to_pg_fields(schema, format, None)
}

/// The answer row by row: a batch is taken from the engine when the rows of
/// the one before are on their way.
pub fn rows(answer: Answer, format: &Format) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(fields(&answer.schema, format)?);
    let batches = stream::unfold(answer, |mut answer| async move {
        answer.next().await.map(|batch| (batch, answer))
    });
    let batches = batches.map(|batch| batch.map_err(|e| error::failed(&e)));
    Ok(QueryResponse::new(
        Arc::clone(&fields),
        encoded(fields, batches),
    ))
}

/// A row of texts.
pub fn texts(row: &[(&str, &str)], format: &Format) -> PgWireResult<QueryResponse> {
    let schema = text_schema(row.iter().map(|(name, _)| *name));
    let fields = Arc::new(fields(&schema, format)?);
    let columns: Vec<ArrayRef> = row
        .iter()
        .map(|(_, value)| Arc::new(StringArray::from(vec![*value])) as _)
        .collect();
    let batch =
        RecordBatch::try_new(schema, columns).map_err(|e| PgWireError::ApiError(Box::new(e)));
    let batches = stream::iter([batch]);
    Ok(QueryResponse::new(
        Arc::clone(&fields),
        encoded(fields, batches),
    ))
}

/// Columns of texts.
pub fn text_schema<'a>(names: impl Iterator<Item = &'a str>) -> SchemaRef {
    let fields: Vec<Field> = names
        .map(|n| Field::new(n, DataType::Utf8, false))
        .collect();
    Arc::new(Schema::new(fields))
}

fn encoded(
    fields: Arc<Vec<FieldInfo>>,
    batches: impl Stream<Item = PgWireResult<RecordBatch>> + Send + 'static,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
    batches
        .map_ok(move |batch| stream::iter(encode_recordbatch(Arc::clone(&fields), batch)))
        .try_flatten()
}

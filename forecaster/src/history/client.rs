//! A small client of the collector's Query service.

use std::io::Cursor;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use headroom_proto::v1::SqlRequest;
use headroom_proto::v1::query_client::QueryClient;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of one answer: 2000 VMs × 720 bins × 100 B is 140 MiB.
const MAX_ANSWER: usize = 256 << 20;

/// History could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The collector's address is no address.
    #[error("using collector address {address}")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The collector did not answer a query.
    #[error("querying the collector")]
    Query(#[source] Box<tonic::Status>),
    /// The answer is larger than the forecaster takes.
    #[error("an answer is larger than {MAX_ANSWER} bytes: lower forecaster.max_points")]
    TooLarge,
    /// The answer is no Arrow IPC stream.
    #[error("reading an answer as arrow")]
    Arrow(#[source] ArrowError),
    /// The answer lacks a column.
    #[error("an answer has no column {0}")]
    Column(String),
}

/// Asks the collector.
#[derive(Clone)]
pub struct SqlClient {
    query: QueryClient<Channel>,
}

impl SqlClient {
    /// A client that connects when it is first used, and again after a loss.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self {
            query: QueryClient::new(channel)
                .max_decoding_message_size(headroom_proto::MAX_MESSAGE_BYTES),
        }
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// No answer, or one that is not Arrow.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>, HistoryError> {
        let status = |s: tonic::Status| HistoryError::Query(Box::new(s));
        let mut request = tonic::Request::new(SqlRequest { sql: sql.into() });
        request.set_timeout(TIMEOUT);
        let mut pieces = self
            .query
            .clone()
            .sql(request)
            .await
            .map_err(status)?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.map_err(status)? {
            bytes.extend_from_slice(&piece.ipc);
            if bytes.len() > MAX_ANSWER {
                return Err(HistoryError::TooLarge);
            }
        }
        let reader =
            StreamReader::try_new(Cursor::new(bytes), None).map_err(HistoryError::Arrow)?;
        reader
            .collect::<Result<_, _>>()
            .map_err(HistoryError::Arrow)
    }
}

/// A channel to the collector that connects when it is first used.
///
/// # Errors
/// An address that is none.
pub fn channel(address: &str) -> Result<Channel, HistoryError> {
    let endpoint = Endpoint::from_shared(address.to_owned());
    let endpoint = endpoint.map_err(|source| HistoryError::Address {
        address: address.into(),
        source,
    })?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .connect_lazy())
}

/// Columns of one batch by name, whatever width the store gave them.
pub(super) struct Columns<'a>(pub &'a RecordBatch);

impl Columns<'_> {
    pub fn ints(&self, name: &str) -> Result<Vec<Option<i64>>, HistoryError> {
        Ok(self
            .cast(name, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .collect())
    }

    pub fn floats(&self, name: &str) -> Result<Vec<Option<f64>>, HistoryError> {
        Ok(self
            .cast(name, &DataType::Float64)?
            .as_primitive::<Float64Type>()
            .iter()
            .collect())
    }

    pub fn texts(&self, name: &str) -> Result<Vec<Option<String>>, HistoryError> {
        let texts = self.cast(name, &DataType::Utf8)?;
        Ok(texts
            .as_string::<i32>()
            .iter()
            .map(|t| t.map(str::to_owned))
            .collect())
    }

    pub fn times(&self, name: &str) -> Result<Vec<Option<i64>>, HistoryError> {
        let times = self.cast(name, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        Ok(times
            .as_primitive::<TimestampMicrosecondType>()
            .iter()
            .collect())
    }

    fn cast(&self, name: &str, to: &DataType) -> Result<ArrayRef, HistoryError> {
        let column = self
            .0
            .column_by_name(name)
            .ok_or_else(|| HistoryError::Column(name.into()))?;
        // A time zone is dropped in place, not converted: the store's is UTC.
        let column = match (column.data_type(), to) {
            (DataType::Timestamp(unit, Some(_)), DataType::Timestamp(..)) => cast(
                &cast(column, &DataType::Timestamp(*unit, Some("UTC".into())))
                    .map_err(HistoryError::Arrow)?,
                to,
            ),
            _ => cast(column, to),
        };
        let column = column.map_err(HistoryError::Arrow)?;
        debug_assert_eq!(column.len(), self.0.num_rows());
        Ok(column)
    }
}

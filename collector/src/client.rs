//! Asking a running collector.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use headroom_proto::MAX_MESSAGE_BYTES;
use headroom_proto::v1::query_client::QueryClient;
use headroom_proto::v1::{SqlRequest, StatusReply, StatusRequest};
use tonic::transport::{Channel, Endpoint};

/// Longest wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that can't be made, or a question that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{0:?} is no address of a collector; write it like 127.0.0.1:7071 or http://host:7071")]
    Address(String),
    /// Nobody answers there.
    #[error("can't reach a collector at {address}; is `headroom up` running?")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The collector said no. Its one line says why.
    #[error("{0}")]
    Refused(String),
    /// The answer can't be read.
    #[error("can't read the collector's answer")]
    Answer(#[source] ArrowError),
}

/// A connection to a collector. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    query: QueryClient<Channel>,
}

/// Connects to `endpoint`: `host:port` or a URL.
///
/// # Errors
/// The address is none, or nobody answers there within 5 s.
pub async fn connect(endpoint: &str) -> Result<Client, ClientError> {
    let address = endpoint.trim();
    let url = if address.contains("://") {
        address.to_string()
    } else {
        format!("http://{address}")
    };
    let channel = Endpoint::from_shared(url)
        .map_err(|_| ClientError::Address(address.into()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .connect()
        .await
        .map_err(|source| ClientError::Connect {
            address: address.into(),
            source,
        })?;
    Ok(Client {
        query: QueryClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
    })
}

impl Client {
    /// Runs one statement that reads; gives its columns and rows.
    ///
    /// # Errors
    /// The statement is refused or fails, or the connection breaks.
    pub async fn sql(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), ClientError> {
        let request = SqlRequest { sql: sql.into() };
        let mut pieces = self
            .query
            .clone()
            .sql(request)
            .await
            .map_err(refused)?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.map_err(refused)? {
            bytes.extend_from_slice(&piece.ipc);
        }
        let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(ClientError::Answer)?;
        let schema = reader.schema();
        let batches: Result<Vec<_>, _> = reader.collect();
        Ok((schema, batches.map_err(ClientError::Answer)?))
    }

    /// What the collector says of itself.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn status(&self) -> Result<StatusReply, ClientError> {
        Ok(self
            .query
            .clone()
            .status(StatusRequest {})
            .await
            .map_err(refused)?
            .into_inner())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
fn refused(status: tonic::Status) -> ClientError {
    ClientError::Refused(status.message().to_string())
}

//! `/v1/sql`: a statement in, its rows out as they come.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::encode::{Encoder, Format};
use super::{Door, error};
use crate::query::{Answer, QueryError};

/// Longest statement; that of the engine itself and a bit, for its own message.
const MAX_BODY: usize = 128 << 10;
/// Time to send the statement.
const READ: Duration = Duration::from_secs(10);
/// Time that a reader may leave a piece lying; then it is cut off.
const STALLED: Duration = Duration::from_secs(30);
/// Pieces on their way to a slow reader.
const IN_FLIGHT: usize = 4;

type Piece = Result<Bytes, std::io::Error>;

/// What stands behind the `?`.
#[derive(Debug, Default, Deserialize)]
pub struct Parameters {
    q: Option<String>,
    format: Option<String>,
}

/// The statement stands in `q`.
pub async fn get(
    State(door): State<Arc<Door>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    match &parameters.q {
        Some(statement) => run(&door, statement, &parameters, &headers).await,
        None => error(
            StatusCode::BAD_REQUEST,
            "write the statement as /v1/sql?q=SELECT..., or POST it",
        ),
    }
}

/// The statement is the body.
pub async fn post(
    State(door): State<Arc<Door>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match timeout(READ, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the statement is longer than 64 KiB, or broke off",
            );
        }
        Err(_) => {
            return error(
                StatusCode::REQUEST_TIMEOUT,
                "the statement did not come within 10 s",
            );
        }
    };
    match std::str::from_utf8(&body) {
        Ok(statement) => run(&door, statement, &parameters, &headers).await,
        Err(_) => error(StatusCode::BAD_REQUEST, "the statement is not UTF-8"),
    }
}

async fn run(
    door: &Arc<Door>,
    statement: &str,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let format = match &parameters.format {
        Some(name) => Format::named(name),
        None => Some(Format::accepted(accept.unwrap_or_default())),
    };
    let Some(format) = format else {
        return error(
            StatusCode::BAD_REQUEST,
            "format is json, ndjson, csv or arrow",
        );
    };
    match start(door, statement, format).await {
        Ok(body) => {
            let mut response = Response::new(body);
            let kind = HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(failed) => {
            door.doors.http.count(&failed);
            refusal(&failed)
        }
    }
}

/// Runs it up to its first rows, so that most failures get a status of their
/// own; the rest goes on behind the body.
async fn start(door: &Arc<Door>, statement: &str, format: Format) -> Result<Body, QueryError> {
    let mut answer = door.engine.sql(statement).await?;
    let mut encoder = Encoder::new(format, &answer.schema)?;
    let mut first = encoder.head();
    let more = match answer.next().await {
        Some(rows) => {
            first.extend(encoder.rows(&rows?)?);
            true
        }
        None => false,
    };
    let (to, pieces) = mpsc::channel::<Piece>(IN_FLIGHT);
    let door = Arc::clone(door);
    tokio::spawn(async move {
        let rest = Rest {
            answer,
            encoder,
            to,
        };
        match rest.send(first, more).await {
            Ok(()) => door.doors.http.answered(),
            Err(failed) => door.doors.http.count(&failed),
        }
    });
    Ok(Body::from_stream(ReceiverStream::new(pieces).boxed()))
}

/// What is still to be sent.
struct Rest {
    answer: Answer,
    encoder: Encoder,
    to: mpsc::Sender<Piece>,
}

impl Rest {
    async fn send(mut self, first: Vec<u8>, more: bool) -> Result<(), QueryError> {
        let sent = self.all(first, more).await;
        if let Err(failed) = &sent {
            // The status is out: a body that breaks off says that it failed.
            let broken = std::io::Error::other(failed.to_string());
            let _ = timeout(STALLED, self.to.send(Err(broken))).await;
        }
        sent
    }

    async fn all(&mut self, first: Vec<u8>, more: bool) -> Result<(), QueryError> {
        self.piece(first).await?;
        if more {
            while let Some(rows) = self.answer.next().await {
                let piece = self.encoder.rows(&rows?)?;
                self.piece(piece).await?;
            }
        }
        let tail = self.encoder.tail()?;
        self.piece(tail).await
    }

    async fn piece(&self, piece: Vec<u8>) -> Result<(), QueryError> {
        if piece.is_empty() {
            return Ok(());
        }
        match timeout(STALLED, self.to.send(Ok(piece.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(QueryError::Failed("the reader went away".into())),
            Err(_) => Err(QueryError::Failed("the reader stalled".into())),
        }
    }
}

fn refusal(failed: &QueryError) -> Response {
    let status = match failed {
        QueryError::Sql(_) => StatusCode::BAD_REQUEST,
        QueryError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        QueryError::Timeout(_) => StatusCode::REQUEST_TIMEOUT,
        QueryError::Busy => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = error(status, &failed.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        let second = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, second);
    }
    response
}

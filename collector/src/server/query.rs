//! `Query.Sql` and `Query.Status`.

use std::pin::Pin;
use std::sync::Arc;

use arrow::ipc::writer::StreamWriter;
use futures::stream::Stream;
use headroom_proto::v1::query_server::Query;
use headroom_proto::v1::{SqlPiece, SqlRequest, StatusReply, StatusRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Services;
use crate::query::{Answer, QueryError};

/// Largest piece, bytes: far below the message limit of any reader.
const PIECE: usize = 1 << 20;
/// Pieces on their way to a slow reader.
const IN_FLIGHT: usize = 4;

type Pieces = Pin<Box<dyn Stream<Item = Result<SqlPiece, Status>> + Send>>;

#[tonic::async_trait]
impl Query for Services {
    type SqlStream = Pieces;

    async fn sql(&self, request: Request<SqlRequest>) -> Result<Response<Pieces>, Status> {
        let answer = self
            .0
            .engine
            .sql(&request.into_inner().sql)
            .await
            .map_err(|e| {
                self.0.doors.grpc.count(&e);
                status(&e)
            })?;
        let (to, pieces) = mpsc::channel(IN_FLIGHT);
        let doors = Arc::clone(&self.0.doors);
        tokio::spawn(async move {
            match send(answer, &to).await {
                Ok(()) => doors.grpc.answered(),
                Err(failed) => {
                    doors.grpc.count(&failed);
                    let _ = to.send(Err(status(&failed))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(Self::status(self)))
    }
}

async fn send(
    mut answer: Answer,
    to: &mpsc::Sender<Result<SqlPiece, Status>>,
) -> Result<(), QueryError> {
    let failed = |e: arrow::error::ArrowError| QueryError::Failed(e.to_string());
    let mut writer = StreamWriter::try_new(Vec::new(), &answer.schema).map_err(failed)?;
    while let Some(rows) = answer.next().await {
        writer.write(&rows?).map_err(failed)?;
        let bytes = std::mem::take(writer.get_mut());
        if !cut(bytes, to).await {
            return Ok(());
        }
    }
    writer.finish().map_err(failed)?;
    cut(std::mem::take(writer.get_mut()), to).await;
    Ok(())
}

/// Sends bytes in pieces; tells whether someone still reads.
async fn cut(bytes: Vec<u8>, to: &mpsc::Sender<Result<SqlPiece, Status>>) -> bool {
    for piece in bytes.chunks(PIECE) {
        if to
            .send(Ok(SqlPiece {
                ipc: piece.to_vec(),
            }))
            .await
            .is_err()
        {
            return false;
        }
    }
    true
}

fn status(error: &QueryError) -> Status {
    let text = error.to_string();
    match error {
        QueryError::Sql(_) | QueryError::TooLong { .. } => Status::invalid_argument(text),
        QueryError::Timeout(_) => Status::deadline_exceeded(text),
        QueryError::Memory(_) | QueryError::Busy => Status::resource_exhausted(text),
        QueryError::Failed(_) => Status::internal(text),
    }
}

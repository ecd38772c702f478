//! `Ingest` over the bytes of its messages: what is logged is what came, and
//! the rows are read without an object for each value.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use headroom_proto::MAX_MESSAGE_BYTES;
use headroom_proto::v1::Ack;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::ingest::{Acks, Intake};

const PUSH: &str = "/headroom.v1.Ingest/Push";

/// The service `headroom.v1.Ingest`.
#[derive(Clone)]
pub struct RawIngest(pub Intake);

impl NamedService for RawIngest {
    const NAME: &'static str = "headroom.v1.Ingest";
}

impl<B> Service<http::Request<B>> for RawIngest
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let push = Push(self.0.clone());
        Box::pin(async move {
            if request.uri().path() != PUSH {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc =
                Grpc::new(Raw).apply_max_message_size_config(Some(MAX_MESSAGE_BYTES), None);
            Ok(grpc.streaming(push, request).await)
        })
    }
}

struct Push(Intake);

impl StreamingService<Bytes> for Push {
    type Response = Ack;
    type ResponseStream = Acks;
    type Future = BoxFuture<Response<Acks>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let acks = self.0.push(request.into_inner());
        Box::pin(async move { Ok(Response::new(acks)) })
    }
}

/// Messages as they come; answers as ever.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Ack;
    type Decode = Bytes;
    type Encoder = <ProstCodec<Ack, Ack> as Codec>::Encoder;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Ack, Ack>::default().encoder()
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

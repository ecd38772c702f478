//! Wire types and their only conversions to the domain.
#![forbid(unsafe_code)]

pub mod columns;
pub mod convert;

/// Generated from `headroom/v1/headroom.proto`.
#[expect(clippy::pedantic, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("headroom.v1");
}

/// Largest gRPC message either side accepts, bytes. A batch of 10 s of 5000
/// vCPUs takes about 2 MiB.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

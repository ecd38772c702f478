//! Doors beside gRPC, each with a listener of its own.

mod pg;

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::Error;

pub use pg::Pg;
pub use pg::tls::load as tls;

/// Listens on the address of a key of `[collector]`.
///
/// # Errors
/// It is taken, or not this host's: names the key.
pub async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            key,
            address,
            source,
        })
}

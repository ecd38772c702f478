//! The certificate of the port.

use std::path::Path;
use std::sync::Arc;

use pgwire::tokio::TlsAcceptor;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads certificate chain and key. There is no way on without them: a pair
/// that can't be used never falls back to plaintext.
///
/// # Errors
/// The key of `[collector]` that is wrong, and why.
pub fn load(cert: &Path, key: &Path) -> Result<TlsAcceptor, (&'static str, String)> {
    let bad =
        |key, path: &Path, why: &dyn std::fmt::Display| (key, format!("{}: {why}", path.display()));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|e| bad("pg_cert", cert, &e))?;
    if chain.is_empty() {
        return Err(bad("pg_cert", cert, &"holds no certificate in PEM"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad("pg_key", key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("pg_cert", cert, &e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| bad("pg_key", key, &e))?;
    // For clients that begin with TLS at once (PostgreSQL 17, sslnegotiation=direct).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

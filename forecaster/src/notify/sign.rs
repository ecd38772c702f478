//! Standard Webhooks 1.0.0 signatures.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use rand::RngCore as _;
use sha2::Sha256;

use super::NotifyError;
use crate::durable;

const PREFIX: &str = "whsec_";
/// Marks a signature by HMAC-SHA256.
const VERSION: &str = "v1,";

/// A symmetric secret. It has no Display, and its Debug shows nothing.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    /// Reads `whsec_` and base64 of 24 to 64 bytes, as the specification says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim().strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The secret in the file.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no secret.
    pub fn read(path: &Path) -> Result<Self, NotifyError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| NotifyError::SecretFile {
            path: path.into(),
            source,
        })?;
        Self::parse(&text).ok_or_else(|| NotifyError::Secret { path: path.into() })
    }

    /// The secret in the file; where there is no file, a new one is made, mode 0600.
    ///
    /// # Errors
    /// A file that cannot be read or written, or holds no secret.
    pub fn read_or_make(path: &Path) -> Result<Self, NotifyError> {
        if !path.exists() {
            let mut bytes = [0_u8; 32];
            rand::rng().fill_bytes(&mut bytes);
            let text = format!("{PREFIX}{}\n", STANDARD.encode(bytes));
            durable::write(path, text.as_bytes()).map_err(|source| NotifyError::SecretFile {
                path: path.into(),
                source,
            })?;
            tracing::info!(path = %path.display(), "made a webhook secret");
        }
        Self::read(path)
    }

    /// Value of header `webhook-signature` for a body; `timestamp` in Unix seconds.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mac = self.mac(id, timestamp, body.as_bytes());
        format!("{VERSION}{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// Whether one of the signatures in a `webhook-signature` header is ours,
    /// compared in constant time.
    #[must_use]
    pub fn verifies(&self, id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
        header
            .split(' ')
            .filter_map(|one| STANDARD.decode(one.strip_prefix(VERSION)?).ok())
            .any(|sum| self.mac(id, timestamp, body).verify_slice(&sum).is_ok())
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const TEXT: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn vector_of_the_python_package() {
        let signature = Secret::parse(TEXT).unwrap().sign(
            "rec_01K3Z8Q4M6W9T2V7XBDNHRC5AE",
            1_787_391_600,
            r#"{"kind":"test"}"#,
        );
        assert_eq!(signature, "v1,SoPgpLQ/tTM3FYHxPFqGOMfkAMNd1yqF7U2e/njx5Xo=");
    }

    #[test]
    fn only_the_signed_bytes_verify() {
        let secret = Secret::parse(TEXT).unwrap();
        let good = secret.sign("rec_1", 1_787_391_600, "body");
        let rotated = format!("v1,AAAA {good}");
        assert!(secret.verifies("rec_1", 1_787_391_600, b"body", &good));
        assert!(secret.verifies("rec_1", 1_787_391_600, b"body", &rotated));
        for (id, at, body) in [
            ("rec_2", 1_787_391_600, "body"),
            ("rec_1", 1, "body"),
            ("rec_1", 1_787_391_600, "Body"),
        ] {
            assert!(
                !secret.verifies(id, at, body.as_bytes(), &good),
                "{id} {at} {body}"
            );
        }
        assert!(!secret.verifies("rec_1", 1_787_391_600, b"body", ""));
    }

    #[test]
    fn secrets_are_checked_and_hidden() {
        for bad in [
            "",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "whsec_AAEC",
            "whsec_%%%",
        ] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
        assert!(!format!("{:?}", Secret::parse(TEXT).unwrap()).contains("AAEC"));
    }

    #[test]
    fn secret_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook.secret");
        let first = Secret::read_or_make(&path).unwrap().0;
        assert_eq!(first, Secret::read_or_make(&path).unwrap().0);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::write(&path, "nothing").unwrap();
        assert!(matches!(
            Secret::read_or_make(&path),
            Err(NotifyError::Secret { .. })
        ));
    }
}

//! Delivery of recommendations: a durable outbox and signed webhooks.
//!
//! **Invariant:** the HTTP client is used in here and nowhere else.
//! **Invariant:** a message is in the outbox, on stable storage, before its
//! first delivery, and is marked delivered there before anything else is told.

mod address;
mod deliver;
mod outbox;
mod sign;

use std::path::PathBuf;

pub use address::{check_url, refuse};
pub(crate) use deliver::lock;
pub use deliver::{Deliverer, Report, Schedule};
pub use outbox::{LogEntry, Message, Outbox, State};
pub use sign::Secret;

/// Delivery failed in a way that retrying does not mend.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The outbox on disk failed.
    #[error("using outbox file {path}")]
    Outbox {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The secret's file failed.
    #[error("using webhook secret {path}")]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The secret is none.
    #[error("webhook secret {path} is not whsec_ and 24 to 64 bytes in base64")]
    Secret {
        /// The file.
        path: PathBuf,
    },
}

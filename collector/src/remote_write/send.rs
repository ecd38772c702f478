//! Requests on their way.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, StatusCode, Url, header, redirect};
use tokio::sync::mpsc;

use crate::config::RemoteWrite;
use crate::error::chain;
use crate::metrics::Sent;

/// One attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A request, compressed.
#[derive(Debug)]
pub struct Request {
    /// Its body.
    pub body: Bytes,
    /// Samples in it.
    pub samples: u64,
}

/// Sends one request after the other.
pub struct Sender {
    client: Client,
    url: Url,
    token_file: Option<PathBuf>,
    sent: Arc<Sent>,
    /// Whether the last attempt failed, which was said then.
    failing: bool,
}

enum Outcome {
    Taken,
    Rejected(String),
    Again(String),
}

impl Sender {
    /// To the configured receiver.
    ///
    /// # Errors
    /// The TLS library can't be set up.
    pub fn new(config: &RemoteWrite, sent: Arc<Sent>) -> Result<Self, crate::Error> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("headroom/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(crate::Error::RemoteWrite)?;
        Ok(Self {
            client,
            url: config.url.clone(),
            token_file: config.token_file.clone(),
            sent,
            failing: false,
        })
    }

    /// Sends until nobody makes requests any more and all are sent.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.recv().await {
            let mut pause = BACKOFF.0;
            while let Outcome::Again(why) = self.attempt(&request).await {
                self.sent.failures.fetch_add(1, Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(why, "remote-write fails, trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
            self.sent.waiting.fetch_sub(1, Relaxed);
        }
    }

    async fn attempt(&mut self, request: &Request) -> Outcome {
        let outcome = self.post(request).await;
        match &outcome {
            Outcome::Taken => {
                self.sent.sent.fetch_add(request.samples, Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("remote-write works again");
                }
            }
            Outcome::Rejected(why) => {
                self.sent.rejected.fetch_add(request.samples, Relaxed);
                tracing::warn!(
                    samples = request.samples,
                    why,
                    "receiver of remote-write rejected samples"
                );
            }
            Outcome::Again(_) => {}
        }
        outcome
    }

    async fn post(&self, request: &Request) -> Outcome {
        let mut post = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(request.body.clone());
        if let Some(file) = &self.token_file {
            // Read each time: tokens are rotated.
            match tokio::fs::read_to_string(file).await {
                Ok(token) => post = post.bearer_auth(token.trim()),
                Err(error) => return Outcome::Again(format!("{}: {error}", file.display())),
            }
        }
        match post.send().await {
            Err(error) => Outcome::Again(chain(&error.without_url())),
            Ok(answer) if answer.status().is_success() => Outcome::Taken,
            Ok(answer) => {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                let why = format!("{status}: {:.200}", text.trim());
                if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                    Outcome::Again(why)
                } else {
                    Outcome::Rejected(why)
                }
            }
        }
    }
}

//! The receiver of `headroom up`: takes webhooks as an orchestrator would,
//! checks their signatures, keeps them in `received.ndjson` and shows them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::http::{HeaderMap, StatusCode};
use headroom_forecaster::notify::Secret;
use serde_json::{Value, json};

/// Messages kept in memory for the page.
const SHOWN: usize = 50;

/// Difference of the clocks that is still taken, seconds (Standard Webhooks).
const TOLERANCE_S: u64 = 300;

/// Messages received so far.
pub struct Receiver {
    data_dir: PathBuf,
    file: PathBuf,
    messages: Vec<Value>,
}

impl Receiver {
    /// Reads what was received before.
    pub fn open(data_dir: &Path) -> Self {
        let file = data_dir.join("received.ndjson");
        let mut messages: Vec<Value> = File::open(&file)
            .map(|f| {
                BufReader::new(f)
                    .lines()
                    .map_while(Result::ok)
                    .filter_map(|l| serde_json::from_str(&l).ok())
                    .collect()
            })
            .unwrap_or_default();
        let surplus = messages.len().saturating_sub(SHOWN);
        messages.drain(..surplus);
        Self {
            data_dir: data_dir.to_owned(),
            file,
            messages,
        }
    }

    /// Newest last.
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// Takes one message: 401 when its signature is wrong, 204 when it is kept
    /// or was here before.
    pub fn take(&mut self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        match self.check(headers, body) {
            Ok((id, payload)) => self.keep(&id, payload),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "webhook refused");
                StatusCode::UNAUTHORIZED
            }
        }
    }

    fn check(&self, headers: &HeaderMap, body: &[u8]) -> anyhow::Result<(String, Value)> {
        let header = |name: &str| -> anyhow::Result<String> {
            let value = headers
                .get(name)
                .with_context(|| format!("header {name} is missing"))?;
            Ok(value
                .to_str()
                .with_context(|| format!("header {name}"))?
                .to_owned())
        };
        let secret = Secret::read(&self.data_dir.join("forecaster/webhook.secret"))?;
        let (id, signature) = (header("webhook-id")?, header("webhook-signature")?);
        let timestamp: i64 = header("webhook-timestamp")?
            .parse()
            .context("header webhook-timestamp")?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        // Replayed messages are refused, as the specification asks.
        anyhow::ensure!(
            timestamp.unsigned_abs().abs_diff(now) <= TOLERANCE_S,
            "the message is of another time"
        );
        anyhow::ensure!(
            secret.verifies(&id, timestamp, body, &signature),
            "the signature is wrong"
        );
        Ok((
            id,
            serde_json::from_slice(body).context("the body is no JSON")?,
        ))
    }

    fn keep(&mut self, id: &str, payload: Value) -> StatusCode {
        if self.messages.iter().any(|m| m["webhook_id"] == *id) {
            return StatusCode::NO_CONTENT;
        }
        let message = json!({ "webhook_id": id, "verified": true, "payload": payload });
        let written = File::options()
            .append(true)
            .create(true)
            .open(&self.file)
            .and_then(|mut f| {
                f.write_all(format!("{message}\n").as_bytes())?;
                f.sync_data()
            });
        if let Err(error) = written {
            tracing::error!(%error, "webhook not kept");
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        self.messages.push(message);
        if self.messages.len() > SHOWN {
            self.messages.remove(0);
        }
        StatusCode::NO_CONTENT
    }
}

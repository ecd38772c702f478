//! Sends due messages and notes what became of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use reqwest::{StatusCode, Url, header, redirect};
use tokio::task::JoinSet;

use super::address::{AddressError, resolve};
use super::outbox::{Message, Outbox, State};
use super::{NotifyError, Secret};
use crate::clock::{self, Micros, SECOND, micros};
use crate::config::Cidr;
use crate::durable;
use crate::gate::{Recommendation, payload};

/// Longest wait for an answer; the specification asks for 15 to 30 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Micros = 3600 * SECOND;
/// Messages sent at once: one slow answer must not hold up the others.
const AT_ONCE: usize = 4;
/// How long a message that takes another back is tried.
const TAKE_BACK_VALID: Micros = 600 * SECOND;

/// Waits before attempt 1, 2, 3 …; the last one repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(pub Vec<Duration>);

impl Default for Schedule {
    fn default() -> Self {
        Self([0, 5, 30, 120, 300].map(Duration::from_secs).to_vec())
    }
}

impl Schedule {
    fn wait(&self, attempts: u32) -> Micros {
        let index = usize::try_from(attempts).unwrap_or(usize::MAX);
        let wait = self
            .0
            .get(index)
            .or(self.0.last())
            .copied()
            .unwrap_or_default();
        // 20 % of jitter, so that receivers do not see bursts after an outage.
        micros(wait.mul_f64(rand::rng().random_range(0.8..1.2)))
    }
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages accepted.
    pub delivered: usize,
    /// Attempts that failed.
    pub failed: usize,
    /// Messages given up.
    pub expired: usize,
}

/// Delivers the outbox to one receiver.
pub struct Deliverer {
    outbox: Arc<Mutex<Outbox>>,
    target: Option<Target>,
    schedule: Schedule,
    disabled: PathBuf,
    slow_until: Micros,
    failing: bool,
}

#[derive(Clone)]
struct Target {
    url: Url,
    secret: Secret,
    allow: Vec<Cidr>,
}

enum Outcome {
    Accepted,
    Gone,
    Failed {
        why: String,
        slow_for: Option<Micros>,
    },
}

impl Deliverer {
    /// A deliverer over the outbox; without a `url` nothing is sent and
    /// messages only expire. State of the receiver is kept in `dir`.
    #[must_use]
    pub fn new(outbox: Arc<Mutex<Outbox>>, dir: &Path, schedule: Schedule) -> Self {
        let disabled = dir.join("endpoint-disabled");
        Self {
            outbox,
            target: None,
            schedule,
            disabled,
            slow_until: 0,
            failing: false,
        }
    }

    /// Sets the receiver.
    #[must_use]
    pub fn to(mut self, url: Url, secret: Secret, allow: Vec<Cidr>) -> Self {
        self.target = Some(Target { url, secret, allow });
        self
    }

    /// Takes a new recommendation into the outbox.
    ///
    /// # Errors
    /// An outbox that cannot be written.
    pub fn propose(outbox: &Mutex<Outbox>, made: Recommendation) -> Result<(), NotifyError> {
        let mut message = Message {
            id: made.id,
            takes_back: None,
            made_at: made.made_at,
            kind: made.kind.into(),
            subject: made.subject,
            confidence: made.confidence,
            body: made.body,
            state: State::Pending,
            attempts: 0,
            next_try: made.made_at,
            expires_at: made.expires_at,
            log: Vec::new(),
        };
        message.reach("proposed", made.made_at);
        lock(outbox).put(message)
    }

    /// Takes a recommendation back. The receiver is told if it may have it.
    ///
    /// # Errors
    /// An outbox that cannot be written.
    pub fn withdraw(
        outbox: &Mutex<Outbox>,
        id: &str,
        reason: &str,
        now: Micros,
    ) -> Result<(), NotifyError> {
        let mut outbox = lock(outbox);
        let Some(mut message) = outbox.get(id).cloned() else {
            return Ok(());
        };
        if !matches!(message.state, State::Pending | State::Delivered) {
            return Ok(());
        }
        let known = message.attempts > 0;
        // First the notice: after a crash in between it is sent all the same.
        if known {
            take_back(&mut outbox, &message, reason, now)?;
        }
        message.state = State::Withdrawn;
        message.reach("withdrawn", now);
        outbox.put(message)
    }

    /// Gives up what expired and sends what is due.
    ///
    /// # Errors
    /// An outbox that cannot be written.
    pub async fn round(&mut self) -> Result<Report, NotifyError> {
        let now = clock::now();
        let mut report = Report {
            expired: self.expire(now)?,
            ..Report::default()
        };
        let Some(target) = self.target.clone() else {
            return Ok(report);
        };
        if now < self.slow_until || self.is_disabled(&target) {
            return Ok(report);
        }
        let mut due: Vec<Message> = lock(&self.outbox)
            .iter()
            .filter(|m| is_due(m, now))
            .cloned()
            .collect();
        let rest = due.split_off(due.len().min(AT_ONCE));
        tracing::trace!(due = due.len(), later = rest.len(), "delivery round");
        let mut attempts = JoinSet::new();
        for message in due {
            let message = self.attempt(message, now)?;
            let target = target.clone();
            attempts.spawn(async move { (send(&target, &message).await, message.id) });
        }
        while let Some(done) = attempts.join_next().await {
            let Ok((outcome, id)) = done else { continue };
            self.settle(&target, &id, outcome, &mut report)?;
        }
        Ok(report)
    }

    /// Counts the attempt on disk before it is made: after a crash the waits
    /// go on where they were.
    fn attempt(&self, mut message: Message, now: Micros) -> Result<Message, NotifyError> {
        message.attempts += 1;
        message.next_try = now + self.schedule.wait(message.attempts);
        lock(&self.outbox).put(message.clone())?;
        Ok(message)
    }

    fn settle(
        &mut self,
        target: &Target,
        id: &str,
        outcome: Outcome,
        report: &mut Report,
    ) -> Result<(), NotifyError> {
        let now = clock::now();
        match outcome {
            Outcome::Accepted => {
                let mut outbox = lock(&self.outbox);
                let Some(mut message) = outbox.get(id).cloned() else {
                    return Ok(());
                };
                // Taken back while it was under way: the notice follows it.
                if message.state == State::Pending {
                    message.state = State::Delivered;
                    message.reach("delivered", now);
                    outbox.put(message)?;
                }
                report.delivered += 1;
                if std::mem::take(&mut self.failing) {
                    tracing::info!("webhook answers again");
                }
            }
            Outcome::Gone => {
                tracing::error!(path = %self.disabled.display(), "webhook says 410 gone: disabled until the url changes or this file is removed");
                let path = self.disabled.clone();
                durable::write(&path, target.url.as_str().as_bytes())
                    .map_err(|source| NotifyError::Outbox { path, source })?;
                report.failed += 1;
            }
            Outcome::Failed { why, slow_for } => {
                if let Some(wait) = slow_for {
                    self.slow_until = self.slow_until.max(now + wait);
                }
                report.failed += 1;
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        reason = why,
                        "webhook failed, retrying until each message expires"
                    );
                }
            }
        }
        Ok(())
    }

    fn expire(&self, now: Micros) -> Result<usize, NotifyError> {
        let mut outbox = lock(&self.outbox);
        let over: Vec<Message> = outbox
            .iter()
            .filter(|m| m.state == State::Pending && now >= m.expires_at)
            .cloned()
            .collect();
        let count = over.len();
        for mut message in over {
            if message.attempts > 0 && message.takes_back.is_none() {
                take_back(
                    &mut outbox,
                    &message,
                    "It could not be delivered before it expired.",
                    now,
                )?;
            }
            message.state = State::Expired;
            message.reach("expired", now);
            tracing::warn!(
                id = message.id,
                attempts = message.attempts,
                "recommendation expired undelivered"
            );
            outbox.put(message)?;
        }
        Ok(count)
    }

    fn is_disabled(&self, target: &Target) -> bool {
        std::fs::read_to_string(&self.disabled).is_ok_and(|url| url.trim() == target.url.as_str())
    }
}

/// Locks the outbox. A panic elsewhere leaves it usable: what counts is on disk.
pub(crate) fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_due(message: &Message, now: Micros) -> bool {
    message.state == State::Pending && message.next_try <= now
}

/// Stores the message that takes another one back; once a recommendation.
fn take_back(
    outbox: &mut Outbox,
    of: &Message,
    reason: &str,
    now: Micros,
) -> Result<(), NotifyError> {
    if outbox
        .iter()
        .any(|m| m.takes_back.as_deref() == Some(of.id.as_str()))
    {
        return Ok(());
    }
    let id = format!("rec_{}", ulid::Ulid::new());
    let Some(body) = payload::withdrawn(&of.body, &id, reason, now) else {
        return Ok(());
    };
    let notice = Message {
        takes_back: Some(of.id.clone()),
        body,
        state: State::Pending,
        attempts: 0,
        next_try: now,
        expires_at: now + TAKE_BACK_VALID,
        log: Vec::new(),
        id,
        ..of.clone()
    };
    outbox.put(notice)
}

async fn send(target: &Target, message: &Message) -> Outcome {
    match post(target, message).await {
        Ok(response) => judge(response.status(), response.headers()),
        Err(why) => Outcome::Failed {
            why,
            slow_for: None,
        },
    }
}

async fn post(target: &Target, message: &Message) -> Result<reqwest::Response, String> {
    let address = resolve(&target.url, &target.allow)
        .await
        .map_err(|e: AddressError| e.to_string())?;
    let name = target.url.host_str().unwrap_or_default();
    let client = reqwest::Client::builder()
        .resolve(name, address)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .build();
    let timestamp = clock::now() / SECOND;
    let request = client
        .map_err(|e| chain(&e))?
        .post(target.url.clone())
        .header(header::CONTENT_TYPE, "application/cloudevents+json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", timestamp)
        .header(
            "webhook-signature",
            target.secret.sign(&message.id, timestamp, &message.body),
        )
        .body(message.body.clone());
    request.send().await.map_err(|e| chain(&e.without_url()))
}

fn judge(status: StatusCode, headers: &header::HeaderMap) -> Outcome {
    let slow = matches!(status.as_u16(), 429 | 502 | 504);
    let asked = headers
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(retry_after);
    match status {
        s if s.is_success() => Outcome::Accepted,
        StatusCode::GONE => Outcome::Gone,
        _ => {
            // Without a wish of the receiver overload costs it 30 s of peace.
            let slow_for = asked
                .or(slow.then_some(30 * SECOND))
                .map(|w| w.min(MAX_RETRY_AFTER));
            Outcome::Failed {
                why: format!("the receiver answered {status}"),
                slow_for,
            }
        }
    }
}

/// Seconds, or an HTTP date.
fn retry_after(text: &str) -> Option<Micros> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Micros::from(seconds) * SECOND);
    }
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text.trim(), format)
        .ok()?
        .assume_utc();
    Some((at.unix_timestamp() * SECOND - clock::now()).max(0))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

//! Messages that wait for delivery, one file each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use headroom_core::rows::RecommendationRow;
use serde::{Deserialize, Serialize};

use super::NotifyError;
use crate::clock::Micros;
use crate::durable;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be sent, from `next_try` on.
    Pending,
    /// Accepted by the receiver. Never sent again.
    Delivered,
    /// Not accepted in time. Never sent again.
    Expired,
    /// Taken back before the receiver had it, or taken back after. Never sent again.
    Withdrawn,
}

/// A state that the store has not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LogEntry {
    /// proposed, delivered, expired or withdrawn.
    pub state: String,
    /// When it was reached.
    pub ts: Micros,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Id of the event, and header `webhook-id`: the same at each attempt.
    pub id: String,
    /// The recommendation that this message takes back.
    pub takes_back: Option<String>,
    /// When the recommendation was made.
    pub made_at: Micros,
    /// Kind of the recommendation.
    pub kind: String,
    /// Subject of the recommendation.
    pub subject: String,
    /// Probability of the breach.
    pub confidence: f64,
    /// CloudEvents JSON, as signed.
    pub body: String,
    /// Where it stands.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub next_try: Micros,
    /// When it is given up.
    pub expires_at: Micros,
    /// States for table `recommendation_log` that are not stored yet.
    pub log: Vec<LogEntry>,
}

impl Message {
    /// Reaches a state that is to be stored. A message that takes another
    /// back has no states of its own there.
    pub fn reach(&mut self, state: &str, now: Micros) {
        if self.takes_back.is_none() {
            self.log.push(LogEntry {
                state: state.into(),
                ts: now,
            });
        }
    }

    fn finished(&self, now: Micros) -> bool {
        // A recommendation is kept until it expires: its breach may vanish.
        let over =
            self.takes_back.is_some() || self.state != State::Delivered || now >= self.expires_at;
        self.state != State::Pending && self.log.is_empty() && over
    }
}

/// All messages, in memory and on disk.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
    messages: BTreeMap<String, Message>,
}

impl Outbox {
    /// Opens the directory, making it where it is missing. Files that are no
    /// messages are set aside as `.corrupt`.
    ///
    /// # Errors
    /// A directory or file that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, NotifyError> {
        let failed = |source| NotifyError::Outbox {
            path: dir.into(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut messages = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let error = |source| NotifyError::Outbox {
                path: path.clone(),
                source,
            };
            match serde_json::from_slice::<Message>(&std::fs::read(&path).map_err(error)?) {
                Ok(message) => drop(messages.insert(message.id.clone(), message)),
                Err(reason) => {
                    tracing::error!(path = %path.display(), error = %reason, "outbox file is corrupt, set aside");
                    std::fs::rename(&path, path.with_extension("corrupt")).map_err(error)?;
                }
            }
        }
        Ok(Self {
            dir: dir.into(),
            messages,
        })
    }

    /// Stores a message, new or changed. When this returns it survives a crash.
    ///
    /// # Errors
    /// A file that cannot be written; in memory nothing changed then.
    pub fn put(&mut self, message: Message) -> Result<(), NotifyError> {
        let path = self.path(&message.id);
        let bytes = serde_json::to_vec_pretty(&message).unwrap_or_default();
        durable::write(&path, &bytes).map_err(|source| NotifyError::Outbox { path, source })?;
        self.messages.insert(message.id.clone(), message);
        Ok(())
    }

    /// The message of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Message> {
        self.messages.get(id)
    }

    /// All messages in the order of their ids, which is that of their making.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    /// Rows of table `recommendation_log` that are not stored yet.
    #[must_use]
    pub fn unstored(&self) -> Vec<RecommendationRow> {
        let rows = self
            .messages
            .values()
            .flat_map(|m| m.log.iter().map(move |entry| (m, entry)));
        let row = |(m, entry): (&Message, &LogEntry)| RecommendationRow {
            ts: entry.ts,
            id: m.id.clone(),
            made_at: m.made_at,
            kind: m.kind.clone(),
            subject: m.subject.clone(),
            confidence: m.confidence,
            state: entry.state.clone(),
            payload: m.body.clone(),
        };
        rows.map(row).collect()
    }

    /// Notes that rows were stored, and removes messages that are done.
    ///
    /// # Errors
    /// A file that cannot be written or removed.
    pub fn stored(&mut self, rows: &[RecommendationRow], now: Micros) -> Result<(), NotifyError> {
        let changed = |m: &&Message| m.log.iter().any(|entry| is_row(m, entry, rows));
        let changed: Vec<Message> = self.messages.values().filter(changed).cloned().collect();
        for mut message in changed {
            let kept = message
                .log
                .iter()
                .filter(|entry| !is_row(&message, entry, rows))
                .cloned()
                .collect();
            message.log = kept;
            self.put(message)?;
        }
        let finished: Vec<String> = self
            .messages
            .values()
            .filter(|m| m.finished(now))
            .map(|m| m.id.clone())
            .collect();
        for id in finished {
            let path = self.path(&id);
            durable::remove(&path).map_err(|source| NotifyError::Outbox { path, source })?;
            self.messages.remove(&id);
        }
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

fn is_row(message: &Message, entry: &LogEntry, rows: &[RecommendationRow]) -> bool {
    rows.iter()
        .any(|r| r.id == message.id && r.state == entry.state && r.ts == entry.ts)
}

//! Who sent, and when last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Senders remembered; ten times the largest fleet planned for one collector.
const MOST: usize = 16_384;
/// A sender that is silent for so long has gone for good.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// The senders of the last day.
#[derive(Debug, Default)]
pub struct Senders {
    /// Host and time of the last batch, by sender id.
    last: Mutex<HashMap<String, (String, SystemTime)>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sender {
    /// Its id.
    pub agent_id: String,
    /// Its host.
    pub host: String,
    /// When its last batch was acked, s since 1970 UTC.
    pub last: f64,
}

impl Senders {
    /// A batch of that sender was acked now.
    pub fn saw(&self, agent_id: &str, host: &str) {
        let now = SystemTime::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.get_mut(agent_id) {
            known.1 = now;
            if known.0 != host {
                host.clone_into(&mut known.0);
            }
            return;
        }
        if last.len() >= MOST {
            last.retain(|_, (_, at)| now.duration_since(*at).is_ok_and(|d| d < FORGET));
        }
        if last.len() < MOST {
            last.insert(agent_id.to_owned(), (host.to_owned(), now));
        }
    }

    /// Those of the last day, by id.
    pub fn list(&self) -> Vec<Sender> {
        let now = SystemTime::now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: &SystemTime| now.duration_since(*at).map_or(true, |d| d < FORGET);
        let sender = |(id, (host, at)): (&String, &(String, SystemTime))| Sender {
            agent_id: id.clone(),
            host: host.clone(),
            last: at
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        };
        let recent = last.iter().filter(|(_, (_, at))| fresh(at));
        let mut all: Vec<Sender> = recent.map(sender).collect();
        all.sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
        all
    }
}

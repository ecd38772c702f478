//! Counting events with the kernel's own tracing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const EVENTS: &str = "/sys/kernel/tracing/events";

/// Counts an event from now on, in the kernel.
pub struct Counter(PathBuf);

impl Counter {
    /// Of an event such as `sched/sched_migrate_task`, by a field, where the
    /// filter holds.
    pub fn start(event: &str, key: &str, filter: &str) -> anyhow::Result<Self> {
        let dir = Path::new(EVENTS).join(event);
        let trigger = format!("hist:keys={key} if {filter}");
        fs::write(dir.join("trigger"), &trigger)
            .with_context(|| format!("count {event} by {trigger:?}"))?;
        Ok(Self(dir))
    }

    /// Number of events so far.
    pub fn read(&self) -> anyhow::Result<u64> {
        Ok(self.by_key()?.values().sum())
    }

    /// The same by the key, which must be a number: lines such as
    /// `{ queue_mapping:          2 } hitcount:       4000`.
    pub fn by_key(&self) -> anyhow::Result<BTreeMap<u64, u64>> {
        let text = fs::read_to_string(self.0.join("hist"))?;
        let lines = text.lines().filter_map(|l| l.rsplit_once("hitcount:"));
        let mut counts = BTreeMap::new();
        for (key, count) in lines.filter(|(key, _)| key.starts_with('{')) {
            let key = key.rsplit_once(':').context("key")?.1;
            let key = key.trim_end_matches([' ', '}']).trim();
            // Some keys are numbers with a meaning: `08388624 (8:16)`.
            let number = key.split_whitespace().next().unwrap_or_default();
            let number = number.parse().with_context(|| key.to_owned())?;
            counts.insert(number, count.trim().parse::<u64>().context("hitcount")?);
        }
        Ok(counts)
    }
}

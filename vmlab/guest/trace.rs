//! Counting events with the kernel's own tracing.

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
        let text = fs::read_to_string(self.0.join("hist"))?;
        let counts = text.lines().filter(|l| !l.starts_with('#'));
        let counts = counts.filter_map(|l| l.rsplit_once("hitcount:"));
        let mut sum = 0;
        for (_, count) in counts {
            sum += count.trim().parse::<u64>().context("hitcount")?;
        }
        Ok(sum)
    }
}

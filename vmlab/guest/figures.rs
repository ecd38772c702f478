//! Files of `name value` lines.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use headroom_vmlab::message::Figures;

/// Reads a file such as `cpu.stat`, `memory.events` or `/proc/vmstat`.
pub fn read(path: &Path) -> anyhow::Result<Figures> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Reads the totals of a pressure file: µs in which some or all waited.
pub fn pressure(path: &Path) -> anyhow::Result<Figures> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let (_, total) = rest.rsplit_once("total=")?;
        Some((format!("{name} total"), total.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// What changed; a figure that is only in `now` began at 0.
pub fn since(now: &Figures, before: &Figures) -> Figures {
    let change = |(name, value): (&String, &i64)| {
        let change = value - before.get(name).copied().unwrap_or(0);
        (change != 0).then(|| (name.clone(), change))
    };
    now.iter().filter_map(change).collect()
}

/// A figure as a count; 0 where there is none.
pub fn count(figures: &Figures, name: &str) -> u64 {
    let value = figures.get(name).copied().unwrap_or(0);
    u64::try_from(value).unwrap_or(0)
}

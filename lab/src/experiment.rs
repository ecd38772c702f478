//! Experiments: something known is done to guests, and what headroom measured
//! is set beside what the kernel or the guest itself says.

use clap::Args;
use serde_json::Value;

use headroom_agent::sampler::Window;

use crate::Lab;
use crate::measure;
use crate::report::{Format, Report};

pub mod io_delay;
pub mod memory;
pub mod multiqueue;
pub mod noisy;
pub mod numa;
pub mod oversubscribe;

/// Flags of every experiment.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Form of the figures
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// CPU weight of all guests together against the rest of the host (1-10000,
    /// 100 is that of everybody else): the more, the less other load disturbs
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub weight: u32,
}

/// Runs an experiment.
///
/// # Errors
/// Not root, or what it needs is missing.
pub async fn run(lab: Lab) -> anyhow::Result<()> {
    match lab {
        Lab::Guests(_) | Lab::Fleet(_) => Ok(()),
        Lab::Oversubscribe(args) => oversubscribe::run(&args).await,
        Lab::Noisy(args) => noisy::run(&args).await,
        Lab::IoDelay(args) => io_delay::run(&args).await,
        Lab::Numa(args) => numa::run(&args).await,
        Lab::Memory(args) => memory::run(&args).await,
        Lab::Multiqueue(args) => multiqueue::run(&args).await,
    }
}

/// `part` of `whole`, percent; null when there is no whole.
#[expect(
    clippy::cast_precision_loss,
    reason = "ns of an experiment: below 2^53"
)]
fn percent(part: u64, whole: u64) -> Value {
    if whole == 0 {
        return Value::Null;
    }
    (100.0 * part as f64 / whole as f64).into()
}

/// Adds what some of headroom's tables say of a VM, and which of them this
/// headroom does not have.
fn add_seen(report: &mut Report, window: &Window, tables: &[&str], vm_name: &str) {
    for table in tables {
        let Some(rows) = measure::rows_of(window, table, vm_name) else {
            let note = format!("{table}: unavailable, this headroom has no such table");
            if !report.notes.contains(&note) {
                report.notes.push(note);
            }
            continue;
        };
        let rows = rows.into_iter().map(|row| ((*table).to_owned(), row));
        report.seen.extend(rows);
    }
}

/// Nanoseconds in another unit.
#[expect(
    clippy::cast_precision_loss,
    reason = "ns of an experiment: below 2^53"
)]
fn per(ns: u64, unit_ns: f64) -> f64 {
    ns as f64 / unit_ns
}

//! `headroom bench`: what headroom itself costs, beside its peers.

mod ingest;

use std::ffi::OsString;
use std::iter;
use std::path::Path;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use headroom_agent::bench::{self, DEFAULT_SAMPLES, ProbesOptions};
use serde_json::Value;

use crate::output::{Format, say};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Throughput with the probes or a peer attached, over nothing; takes some 80 s
    ///
    /// Example: headroom bench probes -o json
    Probes(ProbesArgs),
    /// Rows a collector takes per CPU second, each synced before its ack
    ///
    /// Example: headroom bench ingest --rows 1000000 --kill 3 -o json
    Ingest(ingest::IngestArgs),
}

/// Flags of `headroom bench probes`.
#[derive(Args, Debug)]
pub struct ProbesArgs {
    /// Rounds; each measures every variant once, in turn
    #[arg(long, default_value_t = DEFAULT_SAMPLES, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    samples: u32,
    /// Form of the figures
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Measures and prints.
///
/// # Errors
/// The probes can't be attached here.
pub fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Probes(args) => {
            let options = ProbesOptions {
                samples: args.samples,
                guests: guests(),
                ..Default::default()
            };
            print(&bench::probes(&options)?, args.output)
        }
        Bench::Ingest(args) => {
            let runtime = tokio::runtime::Runtime::new()?;
            print(&runtime.block_on(ingest::run(args))?, args.output)
        }
    }
}

fn print(report: &impl serde::Serialize, output: Format) -> anyhow::Result<()> {
    let value = serde_json::to_value(report).context("print the figures")?;
    match output {
        Format::Json => say(&serde_json::to_string_pretty(&value)?),
        Format::Ndjson => say(&value.to_string()),
        Format::Csv => {
            let figures = figures(&value).into_iter();
            let (keys, values): (Vec<_>, Vec<_>) = figures.map(|(k, v)| (k, v.to_string())).unzip();
            say(&keys.join(","));
            say(&values.join(","));
        }
        Format::Table => {
            for (key, value) in figures(&value) {
                say(&format!("{key:<32} {}", cell(value)));
            }
            for (key, list) in value.as_object().into_iter().flatten() {
                for row in list.as_array().into_iter().flatten() {
                    say(&format!("{key:<32} {}", cells(row)));
                }
            }
        }
    }
    Ok(())
}

/// A command that runs two guests with a disk each for some seconds, so that
/// every family's programs run while they are measured; empty without KVM.
fn guests() -> Vec<OsString> {
    const GUESTS: &str = "lab guests --count 2 --load 50 --io --for 6s";
    match std::env::current_exe() {
        Ok(program) if Path::new("/dev/kvm").exists() => iter::once(program.into())
            .chain(GUESTS.split(' ').map(OsString::from))
            .collect(),
        _ => Vec::new(),
    }
}

/// Single figures by name, those of a group as `group.name`; lists left out.
fn figures(report: &Value) -> Vec<(String, &Value)> {
    let mut figures = Vec::new();
    for (key, value) in report.as_object().into_iter().flatten() {
        match value {
            Value::Object(group) => {
                figures.extend(group.iter().map(|(k, v)| (format!("{key}.{k}"), v)));
            }
            Value::Array(_) => {}
            _ => figures.push((key.clone(), value)),
        }
    }
    figures
}

/// Fields of a list's element in one line.
fn cells(row: &Value) -> String {
    let fields = row.as_object().into_iter().flatten();
    let cells: Vec<_> = fields.map(|(k, v)| format!("{k} {}", cell(v))).collect();
    cells.join("  ")
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unavailable".to_owned(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.3}", number.as_f64().unwrap_or(f64::NAN))
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_single_figures_and_lists_are_rows() {
        let report = serde_json::json!({
            "bpftrace_ratio": null,
            "programs": [{ "hook": "sched_switch", "runs": 7 }],
            "read_us": { "slot": 0.25 },
            "source": "tp_btf",
        });
        let told = figures(&report);
        let told: Vec<_> = told.iter().map(|(k, v)| (&**k, cell(v))).collect();
        assert_eq!(
            told,
            [
                ("bpftrace_ratio", "unavailable".to_owned()),
                ("read_us.slot", "0.250".to_owned()),
                ("source", "tp_btf".to_owned()),
            ]
        );
        assert_eq!(cells(&report["programs"][0]), "hook sched_switch  runs 7");
    }
}

//! `headroom bench`: what headroom itself costs, beside a peer.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use headroom_agent::bench::{self, DEFAULT_SAMPLES, ProbesOptions};

use crate::output::{Format, say};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Throughput of a pinned ping-pong with the probes attached, over nothing
    ///
    /// Example: headroom bench probes -o json
    Probes(ProbesArgs),
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
    let Bench::Probes(args) = bench;
    let options = ProbesOptions {
        samples: args.samples,
        ..Default::default()
    };
    let report = bench::probes(&options)?;
    let value = serde_json::to_value(&report).context("print the figures")?;
    match args.output {
        Format::Json => say(&serde_json::to_string_pretty(&value)?),
        Format::Ndjson => say(&value.to_string()),
        Format::Csv => {
            let fields: Vec<_> = value.as_object().into_iter().flatten().collect();
            say(&fields
                .iter()
                .map(|(k, _)| k.as_str())
                .collect::<Vec<_>>()
                .join(","));
            say(&fields
                .iter()
                .map(|(_, v)| v.to_string())
                .collect::<Vec<_>>()
                .join(","));
        }
        Format::Table => {
            for (key, value) in value.as_object().into_iter().flatten() {
                say(&format!("{key:<22} {value}"));
            }
        }
    }
    Ok(())
}

//! The forecaster as a process of its own.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use headroom_forecaster::{Raw, run};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Forecasts CPU demand and ready, and recommends what to do about it.
///
/// Example: headroom-forecaster --config /etc/headroom.toml
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration; only section [forecaster] is read.
    #[arg(long)]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("HEADROOM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let config = match configuration(&arguments) {
        Ok(config) => config,
        Err(error) => return failed(&error, 2),
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

fn configuration(arguments: &Arguments) -> anyhow::Result<headroom_forecaster::Config> {
    let Some(path) = &arguments.config else {
        return Ok(Raw::default().validate()?);
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut file: toml::Table = text
        .parse()
        .with_context(|| format!("reading {}", path.display()))?;
    let section = file
        .remove("forecaster")
        .unwrap_or_else(|| toml::Table::new().into());
    let raw: Raw = section
        .try_into()
        .with_context(|| format!("{}: section [forecaster]", path.display()))?;
    Ok(raw.validate()?)
}

fn start(config: headroom_forecaster::Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        run(config, shutdown).await
    })
}

#[expect(
    clippy::print_stderr,
    reason = "the one place that tells the operator why the process ends"
)]
fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("headroom-forecaster: {error:#}");
    ExitCode::from(code)
}

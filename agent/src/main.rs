//! The agent on its own.
#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use headroom_agent::config::{Config, Raw};
use tracing_subscriber::EnvFilter;

/// Measures how long the vCPUs of this host's VMs wait for a CPU, and ships
/// the figures to a collector.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  headroom-agent --config /etc/headroom/headroom.toml"
)]
struct Arguments {
    /// TOML file; only its section [agent] is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

// No async main: capabilities are dropped before there is a second thread.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("HEADROOM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = match configure(&arguments) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    match headroom_agent::main_blocking(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn configure(arguments: &Arguments) -> anyhow::Result<Config> {
    use anyhow::Context as _;
    let raw = match &arguments.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            Raw::from_toml(&text).with_context(|| format!("in {}", path.display()))?
        }
        None => Raw::default(),
    };
    Ok(raw.validate()?)
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where the process says why it ends"
)]
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("headroom-agent: {error:#}");
    ExitCode::from(code)
}

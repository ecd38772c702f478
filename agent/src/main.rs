//! The agent on its own.
#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use headroom_agent::config::{Config, Raw};
use tracing_subscriber::EnvFilter;

/// Measures how long the vCPUs of this host's VMs wait for a CPU, and ships
/// the figures to a collector.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  headroom-agent --config /etc/headroom/headroom.toml\n  \
                  headroom-agent --print ndjson --interval 1s --for 30s"
)]
struct Arguments {
    /// TOML file; only its section [agent] is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the rows to standard output instead of shipping them: one JSON
    /// object a line, with its table in "table" and times in µs since 1970 UTC
    #[arg(long, value_name = "FORMAT")]
    print: Option<Format>,
    /// End after this time, such as 30s; else at SIGINT or SIGTERM
    #[arg(long = "for", value_name = "TIME", requires = "print", value_parser = headroom_core::units::parse_duration)]
    time: Option<Duration>,
    /// Length of a window instead of the configuration's
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Ndjson,
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
    let ended = match arguments.print {
        Some(Format::Ndjson) => headroom_agent::print_blocking(&config, arguments.time),
        None => headroom_agent::main_blocking(config),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn configure(arguments: &Arguments) -> anyhow::Result<Config> {
    use anyhow::Context as _;
    let mut raw = match &arguments.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            Raw::from_toml(&text).with_context(|| format!("in {}", path.display()))?
        }
        None => Raw::default(),
    };
    if let Some(interval) = &arguments.interval {
        raw.interval.clone_from(interval);
    }
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

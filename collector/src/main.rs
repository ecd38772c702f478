//! `headroom-collector`: the collector on its own.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use headroom_collector::config;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes batches in, keeps them, answers SQL over them.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: headroom-collector --config headroom.toml"
)]
struct Args {
    /// TOML file; only its section [collector] is read. Without it: defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another part of the collector: `query` runs statements for it.
    #[arg(long, hide = true)]
    role: Option<Role>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Query,
}

#[derive(serde::Deserialize, Default)]
struct File {
    #[serde(default)]
    collector: config::Raw,
}

fn main() -> ExitCode {
    // Both ring and aws-lc-rs are linked: rustls asks which one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = EnvFilter::try_from_env("HEADROOM_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,deltalake_core=warn,delta_kernel=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let done = match args.role {
        Some(Role::Query) => headroom_collector::query_child().map_err(Into::into),
        None => match load(args.config.as_deref()) {
            Ok(config) => serve(config),
            Err(error) => {
                report(&error);
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn load(path: Option<&std::path::Path>) -> anyhow::Result<config::Config> {
    let file = match path {
        None => File::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--config {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("--config {}", path.display()))?
        }
    };
    let mut config = file.collector.validate()?;
    config.query_program = Some(vec!["--role".into(), "query".into()]);
    Ok(config)
}

fn serve(config: config::Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    runtime.block_on(async {
        let (mut int, mut term) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let shutdown = async move {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        };
        headroom_collector::run(config, shutdown).await
    })
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where the process says why it ends"
)]
fn report(error: &anyhow::Error) {
    eprintln!("headroom-collector: {error:#}");
}

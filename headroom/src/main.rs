//! The operator's command: everything at once, SQL, live view, lab, checks.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
pub(crate) use headroom_lab::terminal::{duration, interrupted};

mod bench;
mod config;
mod doctor;
#[cfg(test)]
mod metrics_doc;
mod output;
mod serve;
mod sql;
mod top;
mod up;

/// What KVM withholds from its guests: measured, kept, forecast.
#[derive(Debug, Parser)]
#[command(name = "headroom", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs agent, collector, forecaster and page on this host
    ///
    /// Example: headroom up --data-dir /tmp/headroom --for 30s
    Up(up::UpArgs),
    /// Asks the store in SQL
    ///
    /// Example: headroom sql "SELECT vm_name, avg(ready_ratio) FROM vms GROUP BY 1"
    Sql(sql::SqlArgs),
    /// Shows live VMs and who waits, without a collector too
    ///
    /// Example: headroom top --for 10s
    Top(top::TopArgs),
    /// Real guests to look at
    #[command(subcommand)]
    Lab(headroom_lab::Lab),
    /// Measures what headroom itself costs
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Checks this host and names the remedy of what is missing
    ///
    /// Example: headroom doctor
    Doctor(doctor::DoctorArgs),
    /// Prints or checks the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// One service of `headroom up`
    #[command(subcommand, hide = true)]
    Serve(serve::Serve),
}

fn main() -> ExitCode {
    // Both rustls providers are linked (Delta brings aws-lc): name ours first.
    // It fails only where one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let quiet = !matches!(cli.command, Command::Up(_) | Command::Serve(_));
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(quiet))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("headroom: {error:#}"));
            ExitCode::from(if error.downcast_ref::<config::Invalid>().is_some() {
                2
            } else {
                1
            })
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // The agent attaches and drops its capabilities before any other
        // thread exists, so its runtime is its own.
        Command::Serve(serve) => serve::run(serve).map(|()| ExitCode::SUCCESS),
        Command::Bench(command) => bench::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Config(command) => config::run(&command).map(|()| ExitCode::SUCCESS),
        command => tokio::runtime::Runtime::new()?.block_on(async {
            match command {
                Command::Up(args) => up::run(args).await.map(|()| ExitCode::SUCCESS),
                Command::Sql(args) => sql::run(args).await.map(|()| ExitCode::SUCCESS),
                Command::Top(args) => top::run(args).await.map(|()| ExitCode::SUCCESS),
                Command::Lab(lab) => headroom_lab::run(lab).await.map(|()| ExitCode::SUCCESS),
                Command::Doctor(args) => doctor::run(args).await,
                Command::Serve(_) | Command::Bench(_) | Command::Config(_) => Ok(ExitCode::SUCCESS),
            }
        }),
    }
}

fn log_filter(quiet: bool) -> tracing_subscriber::EnvFilter {
    // Delta's kernel tells each of its steps at info.
    let default = if quiet { "warn" } else { "warn,headroom=info" };
    tracing_subscriber::EnvFilter::try_from_env("HEADROOM_LOG").unwrap_or_else(|_| default.into())
}

//! One service of `headroom up` in a process of its own.

use std::future::Future;
use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Which service.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Probes and shipping
    Agent(ServeArgs),
    /// Ingest, store and SQL
    Collector(ServeArgs),
    /// Forecasts and recommendations
    Forecaster(ServeArgs),
    /// Statements for a collector
    Query,
}

/// Flags of each service.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Configuration file
    #[arg(long)]
    config: PathBuf,
}

/// Runs a service until its standard input closes or a signal comes.
///
/// # Errors
/// Those of the service.
pub fn run(serve: Serve) -> anyhow::Result<()> {
    match serve {
        Serve::Agent(args) => {
            let raw = crate::config::load(Some(&args.config))?.agent;
            // Attaches and drops the capabilities while there is one thread.
            let prepared = headroom_agent::prepare(raw.validate()?)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(headroom_agent::run_prepared(prepared, parent_gone()))
        }
        Serve::Collector(args) => {
            let raw = crate::config::load(Some(&args.config))?.collector;
            let mut config = raw.validate()?;
            config.query_program = Some(vec!["serve".into(), "query".into()]);
            on_threads(headroom_collector::run(config, parent_gone()))
        }
        Serve::Forecaster(args) => {
            let raw = crate::config::load(Some(&args.config))?.forecaster;
            on_threads(headroom_forecaster::run(raw.validate()?, parent_gone()))
        }
        Serve::Query => Ok(headroom_collector::query_child()?),
    }
}

fn on_threads(service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(service)
}

/// The parent holds the other end of standard input: when it ends, however it
/// ends, the pipe closes and this service drains.
fn parent_gone() -> impl Future<Output = ()> + Send + 'static {
    let (gone, closed) = tokio::sync::oneshot::channel();
    // A thread of its own: a read of standard input can't be cancelled.
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while std::io::stdin().read(&mut sink).is_ok_and(|n| n > 0) {}
        let _ = gone.send(());
    });
    async {
        tokio::select! {
            _ = closed => {}
            () = crate::interrupted() => {}
        }
    }
}

//! `headroom sql`: one question to the store.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use headroom_collector::client::{self, Client};

use crate::config::DEFAULT_DATA_DIR;
use crate::output::{self, Format};

/// Flags of `headroom sql`.
#[derive(Args, Debug)]
pub struct SqlArgs {
    /// Data directory; asks the collector that runs on it, else reads it
    #[arg(long, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// A collector's address instead, like 127.0.0.1:7071
    #[arg(long, conflicts_with = "data_dir")]
    url: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// The statement; read from standard input when it is left out or "-"
    statement: Option<String>,
}

/// Asks and prints.
///
/// # Errors
/// No store at that place, or a statement it refuses.
pub async fn run(args: SqlArgs) -> anyhow::Result<()> {
    let statement = match args.statement.as_deref() {
        Some("-") => stdin()?,
        None if std::io::stdin().is_terminal() => {
            bail!("no statement; try: headroom sql \"SHOW TABLES\"")
        }
        None => stdin()?,
        Some(text) => text.to_owned(),
    };
    let (schema, batches) = match &args.url {
        Some(url) => client::connect(url).await?.sql(&statement).await?,
        None => ask(&args.data_dir, &statement).await?,
    };
    output::print(&schema, &batches, args.output)
}

/// Asks the collector that runs on a data directory, else reads the directory.
async fn ask(data_dir: &Path, statement: &str) -> anyhow::Result<(SchemaRef, Vec<RecordBatch>)> {
    if let Some(client) = live(data_dir).await {
        return Ok(client.sql(statement).await?);
    }
    let engine = headroom_collector::offline(data_dir)
        .await
        .with_context(|| {
            format!(
                "open {}; start `headroom up` there, or name another with --data-dir or --url",
                data_dir.display()
            )
        })?;
    Ok(engine.collect(statement).await?)
}

/// A connection to the collector that runs on a data directory, if one does.
pub async fn live(data_dir: &Path) -> Option<Client> {
    let address = std::fs::read_to_string(data_dir.join("endpoint")).ok()?;
    client::connect(address.trim()).await.ok()
}

fn stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read the statement from standard input")?;
    if text.trim().is_empty() {
        bail!("the statement on standard input is empty");
    }
    Ok(text)
}

//! `headroom lab` alone, without the rest of the operator's command, which
//! takes minutes to build: `cargo run -p headroom-lab --example lab -- guests`.

use clap::Parser;

#[derive(Parser)]
#[command(name = "lab", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    lab: headroom_lab::Lab,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter("warn")
        .with_writer(std::io::stderr)
        .init();
    headroom_lab::run(Cli::parse().lab).await
}

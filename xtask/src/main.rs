//! Tasks of this repository that cargo has no command for.
#![forbid(unsafe_code)]

mod ebpf;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Tasks of this repository; run as `cargo xtask <task>`.
#[derive(Parser)]
#[command(after_help = "example: cargo xtask ebpf --check")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the BPF object from ebpf/probes into ebpf/object; installs what is missing.
    Ebpf(ebpf::Args),
    /// Check what the lints can't: lengths, layout, forbidden words.
    Tidy,
    /// Run the agent in a real kernel, inside a virtual machine.
    Vm(vm::Args),
}

fn main() -> anyhow::Result<()> {
    let root = root()?;
    match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&root, &args),
        Task::Tidy => tidy::run(&root),
        Task::Vm(args) => vm::run(&args),
    }
}

/// The repository: the folder above this crate's.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("xtask lies in the repository")?;
    root.canonicalize()
        .with_context(|| format!("{} is gone", root.display()))
}

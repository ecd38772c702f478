//! Harness of the integration tests: runs the built `headroom` as a user does
//! and reads an independent truth beside it.

#![forbid(unsafe_code)]

pub mod guests;
pub mod prometheus;
pub mod require;
pub mod schedstat;
pub mod up;
pub mod web;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The built `headroom`, brought up to date once in each test process; the whole
/// workspace, because another selection means other features and a rebuild.
pub fn headroom() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--locked", "--workspace", "--bins"])
                .current_dir(root)
                .status()
                .expect("run cargo");
            assert!(status.success(), "cargo build failed");
            // .../debug/deps/<this test> -> .../debug/headroom
            let exe = std::env::current_exe().expect("own path");
            exe.parent()
                .and_then(|deps| deps.parent())
                .expect("target directory")
                .join("headroom")
        })
        .clone()
}

/// The Python with DuckDB and the other peers, as `./test` installs it.
pub fn python() -> PathBuf {
    let venv = std::env::var_os("HEADROOM_VENV").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/headroom/venv"),
        PathBuf::from,
    );
    venv.join("bin/python")
}

/// A script of `tests/py`.
pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("py")
        .join(name)
}

/// Runs a command and gives what it printed.
///
/// # Errors
/// It can't be started, or it fails: with what it wrote to standard error.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    if !status.success() {
        bail!("{command:?}: {status}\n{stdout}\n{stderr}");
    }
    Ok(stdout.into_owned())
}

/// Between two questions: each may start a process, and the guests under test
/// need the CPUs.
const POLL: Duration = Duration::from_millis(500);

/// Asks again until there is an answer or the time is over.
///
/// # Errors
/// The time is over: names what was waited for and the last refusal.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("waited {limit:?} for {what}")));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

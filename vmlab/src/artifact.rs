//! The agent and the machine's first process, as static binaries.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LabError;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What goes into every machine.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) agent: PathBuf,
    pub(crate) guest: PathBuf,
}

impl Binaries {
    /// Brings both up to date. They have a target directory of their own:
    /// other flags in the main one would build everything anew each time.
    pub(crate) fn build() -> Result<Self, LabError> {
        let dir = target_dir().join("vmlab");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--quiet", "--locked", "--release"])
            .args(["--target", TARGET])
            .args(["--package", "headroom-agent"])
            .args(["--package", "headroom-vmlab"])
            .args(["--bin", "headroom-agent", "--bin", "headroom-vmguest"])
            .env("CARGO_TARGET_DIR", &dir)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        output(&mut command)?;
        let built = dir.join(TARGET).join("release");
        Ok(Self {
            agent: built.join("headroom-agent"),
            guest: built.join("headroom-vmguest"),
        })
    }
}

/// The target directory that this program was built in: cargo marks it.
fn target_dir() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let marked = exe.ancestors().find(|d| d.join("CACHEDIR.TAG").exists());
    marked.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        Path::to_owned,
    )
}

/// Runs a command and gives what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, LabError> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .output()
        .map_err(|e| LabError::io("start a program", &program, e))?;
    if !output.status.success() {
        return Err(LabError::Command {
            command: format!("{command:?}"),
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

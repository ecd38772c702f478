//! `cargo xtask tidy`: what rustfmt and clippy do not check.

mod rules;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::ebpf::text;
use crate::tidy::rules::{Finding, check_crate, check_file, check_manifest};

/// Checks every file that git knows.
///
/// # Errors
/// One line for each finding.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let list = text(Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut findings = Vec::new();
    for name in list.lines() {
        let path = root.join(name);
        // Deleted but not yet committed.
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("reading {name}"))?;
        findings.extend(check_file(name, &bytes, hostname.trim()));
        if name.ends_with("Cargo.toml") {
            findings.extend(check_manifest(name, &String::from_utf8_lossy(&bytes)));
            findings.extend(roots(root, name)?);
        }
    }
    report(&findings)
}

/// Checks the root files of a crate.
fn roots(root: &Path, manifest: &str) -> anyhow::Result<Vec<Finding>> {
    let folder = manifest.trim_end_matches("Cargo.toml");
    let toml =
        fs::read_to_string(root.join(manifest)).with_context(|| format!("reading {manifest}"))?;
    let mut findings = Vec::new();
    for file in ["src/lib.rs", "src/main.rs"] {
        let name = format!("{folder}{file}");
        if let Ok(source) = fs::read_to_string(root.join(&name)) {
            findings.extend(check_crate(&name, &toml, &source));
        }
    }
    Ok(findings)
}

fn report(findings: &[Finding]) -> anyhow::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    bail!("{} findings\n{}", findings.len(), lines.join("\n"))
}

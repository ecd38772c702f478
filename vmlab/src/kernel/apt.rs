//! Debian packages by name, with apt's own client and its signatures but a
//! state of its own: the machine's lists, cache and configuration stay as they
//! are, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LabError;
use crate::artifact::output;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";

/// One suite of the mirror that this machine already uses.
pub(super) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Fetches the suite's lists into `dir`.
    pub(super) fn open(dir: &Path, suite: &str) -> Result<Self, LabError> {
        if !Path::new(KEYRING).exists() {
            return Err(LabError::Missing {
                program: KEYRING.to_owned(),
                package: "debian-archive-keyring".to_owned(),
            });
        }
        let apt = Self {
            dir: dir.join(suite),
        };
        for part in ["lists/partial", "cache/archives/partial", "debs"] {
            let path = apt.dir.join(part);
            fs::create_dir_all(&path).map_err(|e| LabError::io("make apt's state", &path, e))?;
        }
        let list = apt.dir.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror(suite));
        fs::write(&list, line).map_err(|e| LabError::io("write apt's sources", &list, e))?;
        apt.run("apt-get", &["-qq", "update"], &apt.dir)?;
        Ok(apt)
    }

    /// Names of the suite's packages that begin so.
    pub(super) fn packages(&self, prefix: &str) -> Result<Vec<String>, LabError> {
        let names = self.run("apt-cache", &["pkgnames", prefix], &self.dir)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package and unpacks it as `to`, whole or not at all.
    pub(super) fn unpack(&self, package: &str, to: &Path) -> Result<(), LabError> {
        let debs = self.dir.join("debs");
        self.run("apt-get", &["-qq", "download", package], &debs)?;
        let entries = fs::read_dir(&debs).map_err(|e| LabError::io("list packages", &debs, e))?;
        let deb = entries
            .filter_map(|e| Some(e.ok()?.path()))
            .find(|p| p.to_string_lossy().contains(&format!("/{package}_")))
            .ok_or_else(|| LabError::Io {
                action: "find the downloaded package",
                path: debs,
                source: std::io::ErrorKind::NotFound.into(),
            })?;
        let part = to.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&part))?;
        fs::rename(&part, to).map_err(|e| LabError::io("put the kernel in place", to, e))?;
        let _ = fs::remove_file(deb);
        Ok(())
    }

    fn run(&self, program: &str, args: &[&str], cwd: &Path) -> Result<String, LabError> {
        let mut command = Command::new(program);
        for (key, place) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            let path = self.dir.join(place);
            command.arg("-o").arg(format!("{key}={}", path.display()));
        }
        for option in [
            "Dir::Etc::sourceparts=/dev/null",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            // Else an update that fetched nothing passes for one that did.
            "APT::Update::Error-Mode=any",
            "Acquire::http::Timeout=20",
            // Else apt wants to read the cache as user _apt, who must not.
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        output(command.args(args).current_dir(cwd))
    }
}

/// The mirror that apt is configured with; security suites lie beside it.
fn mirror(suite: &str) -> String {
    let targets = ["indextargets", "--format", "$(REPO_URI)"];
    let targets = output(Command::new("apt-get").args(targets)).unwrap_or_default();
    let mut known = targets.lines().map(|l| l.trim_end_matches('/'));
    let mirror = known.find(|l| l.ends_with("/debian"));
    let mirror = mirror.unwrap_or(MIRROR);
    match suite.ends_with("-security") {
        true => format!("{mirror}-security"),
        false => mirror.to_owned(),
    }
}

//! The place of an experiment: its directory, its cgroup, its guests.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::cgroup::{self, Group};
use crate::guest::{Guest, Spec};

/// Begin of the names of everything that the lab makes.
pub const PREFIX: &str = "headroom-lab.";

/// Dropping it removes all that was made, after the guests.
pub struct Stage {
    group: Option<Group>,
    dir: TempDir,
}

impl Stage {
    /// Sets the stage; guests together have that CPU weight (100 is that of
    /// everybody else). Removes what a killed lab left behind.
    ///
    /// # Errors
    /// KVM is missing or there is no place for files.
    pub fn set(weight: u32) -> anyhow::Result<Self> {
        fs::metadata("/dev/kvm")
            .context("open /dev/kvm: KVM is missing; `headroom doctor` says why")?;
        sweep(&std::env::temp_dir());
        cgroup::sweep(PREFIX);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}.", std::process::id()))
            .tempdir()
            .context("make a directory for the guests")?;
        let group = match Group::create(&unique_name(), weight) {
            Ok(group) => Some(group),
            Err(e) => {
                tracing::warn!(
                    error = format!("{e:#}"),
                    "guests share one cgroup: their weight is that of one session"
                );
                None
            }
        };
        Ok(Self { group, dir })
    }

    /// Sets the stage of an experiment.
    ///
    /// # Errors
    /// As [`Self::set`], and the caller is not root.
    pub fn of_root(experiment: &str, weight: u32) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "headroom lab {experiment} must run as root: it attaches probes, makes cgroups and moves threads"
            );
        }
        Self::set(weight)
    }

    /// Starts a guest and waits until it runs.
    ///
    /// # Errors
    /// As [`Guest::start`].
    pub fn guest(&self, spec: &Spec) -> anyhow::Result<Guest> {
        Guest::start(spec, self.dir.path(), self.group.as_ref())
    }

    /// The cgroup of all guests, if there is one.
    pub const fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }
}

/// A name for a cgroup; a process may set several stages at once.
pub fn unique_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}.{n}", std::process::id())
}

/// Whether the lab process that made a thing of that name is gone.
pub fn is_stale(name: &str) -> bool {
    let pid = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_stale(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_lab_made_is_stale() {
        assert!(!is_stale(&unique_name()));
        // Above the kernel's limit of pids.
        assert!(is_stale("headroom-lab.4294967295.0"));
        assert!(!is_stale("headroom-lab.AbCdEf"));
        assert!(!is_stale("other.4294967295"));
    }
}

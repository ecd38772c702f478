//! A CPU cgroup for the lab's guests, one below it for each guest, as libvirt
//! does: without it SCHED_AUTOGROUP weighs all guests together as one session.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// CPU weight of a cgroup that was never told one, in cgroup v2's scale.
pub const DEFAULT_WEIGHT: u32 = 100;

/// A directory below the CPU controller; dropping it removes it.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Creates a top-level group of the given weight (1..=10000, 100 is that
    /// of everybody else), or says why there can be none.
    ///
    /// # Errors
    /// No CPU controller is mounted, or it can't be written.
    pub fn create(name: &str, weight: u32) -> anyhow::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        let v2 = Path::new("/sys/fs/cgroup");
        let (path, file, value) = if v1.join("cpu.shares").exists() || v1.join("tasks").exists() {
            // v1 counts in 1024 = normal.
            (
                v1.join(name),
                "cpu.shares",
                (u64::from(weight) * 1024 / 100).max(2),
            )
        } else {
            fs::write(v2.join("cgroup.subtree_control"), "+cpu")
                .context("enable the cpu controller of cgroup v2")?;
            (v2.join(name), "cpu.weight", u64::from(weight))
        };
        fs::create_dir(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        let group = Self { path };
        fs::write(group.path.join(file), value.to_string())
            .with_context(|| format!("set {file}"))?;
        if file == "cpu.weight" {
            fs::write(group.path.join("cgroup.subtree_control"), "+cpu")
                .context("delegate the cpu controller")?;
        }
        Ok(group)
    }

    /// A group below this one, of normal weight.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn child(&self, name: &str) -> anyhow::Result<Self> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Moves a process, all its threads, into the group.
    ///
    /// # Errors
    /// The process is gone or the group can't be written.
    pub fn add(&self, pid: u32) -> anyhow::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("move process {pid} into {}", self.path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may need a moment to see the last task leave.
        for _ in 0..50 {
            if fs::remove_dir(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

//! Cgroups (v2) as libvirt lays them out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: &str = "+cpu +cpuset +io +memory";

/// A VM's cgroup.
pub struct Scope(PathBuf);

impl Scope {
    /// `machine.slice/machine-qemu\x2dNUMBER\x2dNAME.scope`.
    pub fn create(number: u32, name: &str) -> anyhow::Result<Self> {
        let slice = Path::new(ROOT).join("machine.slice");
        delegate(Path::new(ROOT))?;
        fs::create_dir_all(&slice).context("make machine.slice")?;
        delegate(&slice)?;
        let path = slice.join(format!(r"machine-qemu\x2d{number}\x2d{name}.scope"));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Moves a process with all its threads into it.
    pub fn add(&self, pid: u32) -> anyhow::Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.file(file);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }

    /// Path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn delegate(group: &Path) -> anyhow::Result<()> {
    fs::write(group.join("cgroup.subtree_control"), CONTROLLERS)
        .with_context(|| format!("delegate {CONTROLLERS} below {}", group.display()))
}

//! A CPU cgroup for the lab's guests, one below it for each guest, as libvirt
//! does: without it SCHED_AUTOGROUP weighs all guests together as one session.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// CPU weight of a cgroup that was never told one, in cgroup v2's scale.
pub const DEFAULT_WEIGHT: u32 = 100;

const V1_CPU: &str = "/sys/fs/cgroup/cpu";
const V1_MEMORY: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// A cgroup directory; dropping it removes it.
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
        let v1 = Path::new(V1_CPU);
        if v1.join("cpu.shares").exists() || v1.join("tasks").exists() {
            let group = Self::make(v1.join(name))?;
            // v1 counts in 1024 = normal.
            group.write("cpu.shares", (u64::from(weight) * 1024 / 100).max(2))?;
            return Ok(group);
        }
        fs::write(Path::new(V2).join("cgroup.subtree_control"), "+cpu")
            .context("enable the cpu controller of cgroup v2")?;
        let group = Self::make(Path::new(V2).join(name))?;
        group.write("cpu.weight", u64::from(weight))?;
        fs::write(group.path.join("cgroup.subtree_control"), "+cpu")
            .context("delegate the cpu controller")?;
        Ok(group)
    }

    /// A group below this one, of normal weight.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn child(&self, name: &str) -> anyhow::Result<Self> {
        Self::make(self.path.join(name))
    }

    /// Moves a process, all its threads, into the group.
    ///
    /// # Errors
    /// The process is gone or the group can't be written.
    pub fn add(&self, pid: u32) -> anyhow::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("move process {pid} into {}", self.path.display()))
    }

    /// Lets all in the group run for so many µs of every period.
    ///
    /// # Errors
    /// The group can't be written.
    pub fn quota(&self, quota_us: u64, period_us: u64) -> anyhow::Result<()> {
        if self.path.join("cpu.max").exists() {
            let value = format!("{quota_us} {period_us}");
            return fs::write(self.path.join("cpu.max"), value).context("set cpu.max");
        }
        self.write("cpu.cfs_period_us", period_us)?;
        self.write("cpu.cfs_quota_us", quota_us)
    }

    fn make(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    fn write(&self, file: &str, value: u64) -> anyhow::Result<()> {
        fs::write(self.path.join(file), value.to_string()).with_context(|| format!("set {file}"))
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

/// A limit on a guest's memory, by the memory controller of cgroup v1 or v2.
#[derive(Debug)]
pub struct MemoryLimit {
    path: PathBuf,
    // v1's hierarchy is apart from that of the CPU.
    own: Option<Group>,
}

impl MemoryLimit {
    /// Limits a process that is in `guest`, a group below `all`, to so many
    /// bytes above what its group is charged for now. In v1 that is nothing:
    /// charges stay behind when a process is moved.
    ///
    /// # Errors
    /// No memory controller is mounted or it can't be written.
    pub fn set(
        all: &Group,
        guest: &Group,
        pid: u32,
        name: &str,
        more_bytes: u64,
    ) -> anyhow::Result<Self> {
        if Path::new(V1_MEMORY).join("memory.limit_in_bytes").exists() {
            let own = Group::make(Path::new(V1_MEMORY).join(name))?;
            own.write("memory.limit_in_bytes", more_bytes)?;
            own.add(pid)?;
            return Ok(Self {
                path: own.path.clone(),
                own: Some(own),
            });
        }
        for parent in [Path::new(V2), &all.path] {
            fs::write(parent.join("cgroup.subtree_control"), "+memory")
                .context("enable the memory controller of cgroup v2")?;
        }
        let limit = Self {
            path: guest.path.clone(),
            own: None,
        };
        let charged = limit.used_bytes().context("read memory.current")?;
        guest.write("memory.max", charged + more_bytes)?;
        Ok(limit)
    }

    /// `v1` or `v2`.
    pub const fn version(&self) -> &'static str {
        if self.own.is_some() { "v1" } else { "v2" }
    }

    /// Memory charged to the group, bytes.
    pub fn used_bytes(&self) -> Option<u64> {
        self.number("memory.current")
            .or_else(|| self.number("memory.usage_in_bytes"))
    }

    /// Times that the limit was met.
    pub fn met(&self) -> Option<u64> {
        self.number("memory.failcnt")
            .or_else(|| self.keyed("memory.events", "max"))
    }

    /// Processes killed because of the limit.
    pub fn kills(&self) -> Option<u64> {
        self.keyed("memory.events", "oom_kill")
            .or_else(|| self.keyed("memory.oom_control", "oom_kill"))
    }

    /// Memory of the group in swap, bytes; v1 tells it only with swap accounting.
    pub fn swapped_bytes(&self) -> Option<u64> {
        self.number("memory.swap.current")
            .or_else(|| self.keyed("memory.stat", "swap"))
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.path.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        let value = text
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        value?.trim().parse().ok()
    }
}

/// Removes groups of labs that are gone.
pub fn sweep(prefix: &str) {
    for root in [V1_CPU, V1_MEMORY, V2] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(prefix) || !crate::stage::is_stale(&name) {
                continue;
            }
            for child in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

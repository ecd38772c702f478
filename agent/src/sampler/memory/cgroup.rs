//! Finds the cgroup that is a VM's own.
//!
//! Its figures are the VM's only if nobody else is in it: a VM started by hand
//! sits in its user's session or in the root, whose figures are the host's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Groups that libvirt makes within a VM's own, with parts of its threads
/// (libvirt's src/util/vircgroup.c).
const INNER: [&str; 3] = ["vcpu", "iothread", "emulator"];

/// Helpers that platforms start beside a VMM into its cgroup; they work for
/// this VM alone.
const HELPERS: [&str; 10] = [
    "swtpm",
    "virtiofsd",
    "qemu-pr-helper",
    "qemu-bridge-hel",
    "dbus-daemon",
    "passt",
    "slirp4netns",
    "virt-launcher",
    "virt-launcher-m",
    "virtqemud",
];

/// Groups and processes looked at for one VM. A VM has a group a vCPU and a
/// few helpers; past this bound the group is no VM's own.
const MAX_LOOKED_AT: usize = 4096;

/// Hierarchies of this host that may account memory.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    v1_memory: Option<Mount>,
    v2: Option<Mount>,
}

/// Where a hierarchy is mounted, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// The mounted part, `/` for all of it.
    root: String,
}

/// A VM's own groups; they may differ in place, as each hierarchy has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Group of the memory controller, with its version.
    pub memory: Option<(PathBuf, Version)>,
    /// Name of that group within its hierarchy.
    pub name: Option<String>,
    /// Group of the second hierarchy, which alone accounts pressure.
    pub pressure: Option<PathBuf>,
}

/// Version of the hierarchy that a memory controller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `memory.usage_in_bytes` and so on.
    V1,
    /// `memory.current` and so on.
    V2,
}

impl Mounts {
    /// The hierarchies in `mountinfo` (Documentation/filesystems/proc.rst).
    pub fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((place, fs)) = line.split_once(" - ") else {
                continue;
            };
            let mut place = place.split(' ').skip(3);
            let (Some(root), Some(point)) = (place.next(), place.next()) else {
                continue;
            };
            let mount = Mount {
                point: point.into(),
                root: root.into(),
            };
            let mut fs = fs.split(' ');
            let (kind, options) = (fs.next(), fs.nth(1).unwrap_or_default());
            // The first of several mounts of one hierarchy does.
            match kind {
                Some("cgroup2") => found.v2.get_or_insert(mount),
                Some("cgroup") if options.split(',').any(|o| o == "memory") => {
                    found.v1_memory.get_or_insert(mount)
                }
                _ => continue,
            };
        }
        found
    }

    /// The groups that hold this process and what belongs to it, and nothing
    /// else. `of_vm` are further ids that belong to the VM: its vhost workers,
    /// which kernels before 6.4 run as kernel threads in its groups.
    pub fn own(&self, proc: &Path, pid: u32, of_vm: &HashSet<u32>) -> Own {
        let text = std::fs::read_to_string(proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
        let mut own = Own::default();
        let alone = |mount: &Option<Mount>, path: &str| {
            let (mount, path) = (mount.as_ref()?, outer(path));
            let dir = mount.place(path)?;
            let census = Census { proc, pid, of_vm };
            census.alone(&dir).then(|| (dir, path.to_owned()))
        };
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            if controllers.is_empty() {
                own.pressure = alone(&self.v2, path).map(|(dir, _)| dir);
                // In a mixed setup the controller is in the first hierarchy.
                if self.v1_memory.is_none() {
                    own.set(alone(&self.v2, path), Version::V2);
                }
            } else if controllers.split(',').any(|c| c == "memory") {
                own.set(alone(&self.v1_memory, path), Version::V1);
            }
        }
        own
    }
}

impl Own {
    fn set(&mut self, found: Option<(PathBuf, String)>, version: Version) {
        let file = match version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        if let Some((dir, name)) = found
            && dir.join(file).exists()
        {
            (self.memory, self.name) = (Some((dir, version)), Some(name));
        }
    }
}

impl Mount {
    /// Directory of a group; `None` for the hierarchy's root and for a group
    /// outside of the mounted part.
    fn place(&self, path: &str) -> Option<PathBuf> {
        let inside = match self.root.as_str() {
            "/" => path,
            root => path.strip_prefix(root)?,
        };
        let inside = inside.trim_start_matches('/');
        if inside.is_empty() || inside.split('/').any(|part| part == "..") {
            return None;
        }
        Some(self.point.join(inside))
    }
}

/// The group above those that libvirt makes for parts of a VM.
fn outer(mut path: &str) -> &str {
    while let Some((above, last)) = path.rsplit_once('/') {
        let kind = last.trim_end_matches(|c: char| c.is_ascii_digit());
        // `libvirt` is an inner group only below one; /libvirt/qemu/NAME of old
        // versions is not cut, for it does not end so.
        if !INNER.contains(&kind) && last != "libvirt" {
            break;
        }
        path = above;
    }
    path
}

/// Who is in a group.
struct Census<'a> {
    proc: &'a Path,
    pid: u32,
    of_vm: &'a HashSet<u32>,
}

impl Census<'_> {
    /// Whether a group and those below hold the VM's process and nobody else.
    fn alone(&self, dir: &Path) -> bool {
        let (mut todo, mut looked_at, mut found) = (vec![dir.to_path_buf()], 0, false);
        while let Some(dir) = todo.pop() {
            // A threaded group refuses this; its processes are listed above.
            let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|l| l.parse::<u32>().ok()) {
                found |= pid == self.pid;
                looked_at += 1;
                if looked_at > MAX_LOOKED_AT || !self.belongs(pid) {
                    return false;
                }
            }
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    looked_at += 1;
                    todo.push(entry.path());
                }
            }
        }
        found
    }

    fn belongs(&self, pid: u32) -> bool {
        self.of_vm.contains(&pid) || self.descends(pid) || self.helps(pid)
    }

    fn descends(&self, pid: u32) -> bool {
        // Processes of a VMM nest one or two deep; the bound ends a loop that
        // reuse of pids between two reads could make.
        let mut pid = pid;
        for _ in 0..16 {
            if pid == self.pid {
                return true;
            }
            match self.parent(pid) {
                Some(parent) if parent > 1 => pid = parent,
                _ => return false,
            }
        }
        false
    }

    fn parent(&self, pid: u32) -> Option<u32> {
        let stat = std::fs::read(self.proc.join(format!("{pid}/stat"))).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // A comm may hold spaces and brackets; state and parent follow it.
        stat.get(stat.rfind(')')? + 1..)?
            .split_ascii_whitespace()
            .nth(1)?
            .parse()
            .ok()
    }

    /// A helper of the platform, or a kernel thread of this VM.
    fn helps(&self, pid: u32) -> bool {
        let comm = std::fs::read(self.proc.join(format!("{pid}/comm"))).unwrap_or_default();
        let comm = String::from_utf8_lossy(&comm);
        let comm = comm.trim_end_matches('\n');
        let of_kernel = comm
            .rsplit_once(['-', '/'])
            .is_some_and(|(kind, of)| kind_of_vm(kind) && of.parse() == Ok(self.pid));
        of_kernel || HELPERS.contains(&comm)
    }
}

/// Kernel threads named after the VMM: `vhost-PID`, `kvm-pit/PID`, and
/// `kvm-nx-lpage-recovery-PID`, which older kernels (6.1) put into its cgroup
/// (`kvm_vm_worker_thread` in virt/kvm/kvm_main.c). A kernel thread's comm is
/// not cut at 15 bytes since 5.17.
fn kind_of_vm(kind: &str) -> bool {
    matches!(kind, "vhost" | "kvm-pit" | "kvm-nx-lpage-recovery")
}

#[cfg(test)]
mod tests;

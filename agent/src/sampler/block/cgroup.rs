//! Cgroups that belong to one VM alone.
//!
//! Pages that a VM dirtied are written back by kernel threads; the kernel
//! accounts such requests to the cgroup that dirtied them. That names the VM
//! where its process has a cgroup to itself, as every platform gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::observe::{Scene, SceneVm};
use crate::discover::VmKey;

/// Directories below a VM's own: libvirt makes one a vCPU and one an iothread.
const MAX_DIRS: usize = 600;

/// Levels above the process that may be the VM's: a container's scope, a
/// libvirt directory and its part for the emulator are three.
const MAX_LEVELS: usize = 4;

/// Ticks in which a new VM is looked at again: launchers move it after start.
const SETTLING: u8 = 5;

/// The cgroups that the kernel accounts block I/O to.
pub struct Cgroups {
    proc: PathBuf,
    mount: Option<Mount>,
    seen: BTreeMap<VmKey, Seen>,
    named: BTreeMap<u64, u16>,
}

struct Seen {
    ticks: u8,
    own: BTreeSet<u64>,
}

/// The hierarchy: v1's `blkio` where it is mounted, else v2.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    /// The part of the hierarchy that is mounted.
    root: String,
    v1: bool,
}

impl Cgroups {
    pub fn find(proc: PathBuf) -> Self {
        let text = fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default();
        Self {
            mount: mount(&text),
            proc,
            seen: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    /// What must be named anew: cgroup ids and their VM, `None` for no VM any
    /// more. Looks at new VMs, and at all others on demand.
    pub fn changes(&mut self, scene: &Scene<'_>, all: bool) -> Vec<(u64, Option<u16>)> {
        let Some(mount) = &self.mount else {
            return Vec::new();
        };
        let mut before = std::mem::take(&mut self.seen);
        let mut wanted = BTreeMap::new();
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let Some(number) = vm.index else {
                continue;
            };
            let mut seen = before.remove(&vm.vm.key).unwrap_or_else(|| Seen {
                ticks: 0,
                own: BTreeSet::new(),
            });
            if all || seen.ticks < SETTLING {
                seen.ticks = seen.ticks.saturating_add(1);
                seen.own = own(&self.proc, mount, vm);
            }
            wanted.extend(seen.own.iter().map(|id| (*id, number)));
            self.seen.insert(vm.vm.key.clone(), seen);
        }
        let gone = self.named.keys().filter(|id| !wanted.contains_key(id));
        let mut changes: Vec<_> = gone.map(|id| (*id, None)).collect();
        let new = wanted
            .iter()
            .filter(|(id, vm)| self.named.get(id) != Some(vm));
        changes.extend(new.map(|(id, vm)| (*id, Some(*vm))));
        self.named = wanted;
        changes
    }
}

/// Ids of the cgroups from the VM's process upwards that hold no other process.
fn own(proc: &Path, mount: &Mount, vm: &SceneVm<'_>) -> BTreeSet<u64> {
    let pid = vm.vm.key.pid;
    let text = fs::read_to_string(proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
    // A pod's container holds libvirt's daemon and launcher beside its one VM.
    let shared = vm.vm.info.platform == "kubevirt";
    let mut ids = BTreeSet::new();
    let Some(mut dir) = path(&text, mount.v1).and_then(|p| below(&p, &mount.root)) else {
        return ids;
    };
    for _ in 0..MAX_LEVELS {
        // Slices are for many by systemd's rules, and the root is everyone's.
        if dir.as_os_str().is_empty() || dir.extension().is_some_and(|e| e == "slice") {
            break;
        }
        let place = mount.at.join(&dir);
        if !shared && !alone(&place, pid) {
            break;
        }
        let Ok(meta) = fs::metadata(&place) else {
            break;
        };
        ids.insert(meta.ino());
        // The pod above its container holds others.
        if shared || !dir.pop() {
            break;
        }
    }
    ids
}

/// Whether no other process is in a cgroup or below.
fn alone(dir: &Path, pid: u32) -> bool {
    let mut dirs = vec![dir.to_owned()];
    let mut looked = 0;
    while let Some(dir) = dirs.pop() {
        looked += 1;
        if looked > MAX_DIRS {
            return false;
        }
        // A threaded cgroup shows no processes: they stand further up.
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if procs.lines().any(|line| line.trim().parse() != Ok(pid)) {
            return false;
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let inner = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.extend(inner.map(|e| e.path()));
    }
    true
}

/// The process's path in `/proc/P/cgroup`.
fn path(text: &str, v1: bool) -> Option<String> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let here = match v1 {
            true => controllers.split(',').any(|c| c == "blkio"),
            false => id == "0" && controllers.is_empty(),
        };
        here.then(|| path.to_owned())
    })
}

/// The path below the mounted part; `None` for one outside of it, as a
/// container sees its host's.
fn below(path: &str, root: &str) -> Option<PathBuf> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    if !rest.starts_with('/') || rest.split('/').any(|part| part == "..") {
        return None;
    }
    Some(PathBuf::from(rest.trim_start_matches('/')))
}

fn mount(mountinfo: &str) -> Option<Mount> {
    let mut v2 = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(at)) = (left.get(3), left.get(4)) else {
            continue;
        };
        let found = |v1| Mount {
            at: PathBuf::from(at),
            root: (*root).to_owned(),
            v1,
        };
        let options = right.last().copied().unwrap_or_default();
        match right.first() {
            Some(&"cgroup") if options.split(',').any(|o| o == "blkio") => {
                return Some(found(true));
            }
            Some(&"cgroup2") if v2.is_none() => v2 = Some(found(false)),
            _ => {}
        }
    }
    v2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_where_it_has_block_io() {
        let unified = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let blkio = "31 23 0:27 / /sys/fs/cgroup/blkio rw,nosuid - cgroup cgroup rw,blkio";
        let found = mount(&format!("{unified}\n{blkio}\n")).unwrap();
        assert_eq!(
            (found.at.to_str(), found.v1),
            (Some("/sys/fs/cgroup/blkio"), true)
        );
        assert!(!mount(unified).unwrap().v1);
        assert_eq!(mount("22 1 254:0 / / rw - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn paths_of_both_versions() {
        let text = "8:pids:/\n7:blkio,io:/machine/vm1\n0::/machine.slice/vm1.scope\n";
        assert_eq!(path(text, true).as_deref(), Some("/machine/vm1"));
        assert_eq!(
            path(text, false).as_deref(),
            Some("/machine.slice/vm1.scope")
        );
        assert_eq!(below("/a/b", "/"), Some("a/b".into()));
        assert_eq!(below("/pod/a/b", "/pod"), Some("a/b".into()));
        assert_eq!(below("/podium", "/pod"), None);
        assert_eq!(below("/../../x", "/"), None);
    }

    #[test]
    fn a_cgroup_with_another_process_is_not_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("emulator");
        fs::create_dir(&inner).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        fs::write(inner.join("cgroup.procs"), "42\n").unwrap();
        assert!(alone(dir.path(), 42));
        fs::write(dir.path().join("cgroup.procs"), "7\n").unwrap();
        assert!(alone(&inner, 42));
        assert!(!alone(dir.path(), 42));
    }
}

//! The cgroups that a VM has to itself.
//!
//! A group's figures are a VM's only if nobody else is in it: a VM started by
//! hand sits in its user's session or in the root, whose figures are the
//! host's. The rules, for version 1 and 2 alike:
//! - A group is a VM's own if it and those below hold the VM's process and
//!   nobody but who works for this VM alone ([`census`]): its children, its
//!   kernel threads, its platform's helpers; never another VM's process. In a
//!   pod of KubeVirt that is the container's group, whoever else is in it.
//! - So may those above be, up to the first that is not: the root of a
//!   hierarchy never, and no slice that the process is not in itself, for it
//!   is for many by systemd's rules.
//! - Each controller is asked for in its own hierarchy: the one of version 1
//!   that has it, else the only one of version 2.
//! - Nothing is kept between two calls: launchers move a VM after its start,
//!   and others may join it.

mod census;
mod mounts;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::discover::Vm;
use crate::files;
use census::Census;
use mounts::{Mount, Mounts};

pub use mounts::Version;

/// Groups looked at from the process upwards: a container's scope, a libvirt
/// directory and its part for the emulator are three.
const MAX_LEVELS: usize = 4;

/// Groups that libvirt makes within a VM's own, with parts of its threads
/// (libvirt's src/util/vircgroup.c).
const PARTS: [&str; 3] = ["vcpu", "iothread", "emulator"];

/// What accounts; each may have a hierarchy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Pages of hugetlbfs.
    Hugetlb,
    /// Block I/O: `blkio` of version 1, `io` of version 2.
    Block,
    /// Pressure, which version 2 alone accounts, without any controller.
    Pressure,
}

/// A group that a VM has to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its directory.
    pub dir: PathBuf,
    /// Its path within its hierarchy.
    pub path: String,
    /// Of that hierarchy.
    pub version: Version,
}

/// Finds them below one `/proc`.
pub struct Cgroups {
    proc: PathBuf,
    mounts: Mounts,
}

impl Cgroups {
    /// With the hierarchies that this process sees mounted now.
    pub fn new(proc: PathBuf) -> Self {
        let mountinfo = files::text(proc.join("self/mountinfo")).unwrap_or_default();
        Self {
            mounts: Mounts::parse(&mountinfo),
            proc,
        }
    }

    /// The VM's own groups in the hierarchy of a controller, from its
    /// process's upwards; none where it has none.
    pub fn own(&self, vm: &Vm, controller: Controller) -> Vec<Group> {
        let pid = vm.key.pid;
        let of_vm: HashSet<u32> = vm.threads.iter().map(|thread| thread.pid).collect();
        let pod = vm.info.platform == "kubevirt";
        let census = Census {
            proc: &self.proc,
            pid,
            of_vm: &of_vm,
            pod,
        };
        let text = files::text(self.proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
        let Some((mount, mut path)) = self.mounts.place(controller, &text) else {
            return Vec::new();
        };
        let mut groups = Vec::new();
        // The pod above its container holds others.
        let levels = if pod { 1 } else { MAX_LEVELS };
        for level in 0..levels {
            let Some(dir) = candidate(mount, path, level) else {
                break;
            };
            if !census.alone(&dir) {
                break;
            }
            groups.push(Group {
                dir,
                path: path.to_owned(),
                version: mount.version,
            });
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
        groups
    }

    /// Whether the VM's process is about to go: its address space, then its
    /// cgroups are gone before its entry in `/proc` is.
    pub fn dying(&self, vm: &Vm) -> bool {
        let status = files::text(self.proc.join(format!("{}/status", vm.key.pid)));
        status.is_none_or(|status| !status.contains("\nVmRSS:"))
    }

    /// The nearest own group that is the VM's as a whole, not a part that
    /// libvirt makes, and has that file: without, its controller is off there.
    pub fn whole(&self, vm: &Vm, controller: Controller, file: &str) -> Option<Group> {
        let own = self.own(vm, controller);
        own.into_iter()
            .find(|group| !is_part(&group.path) && group.dir.join(file).exists())
    }
}

impl Group {
    /// Its id, by which the kernel's own programs know it.
    pub fn id(&self) -> Option<u64> {
        std::fs::metadata(&self.dir).ok().map(|meta| meta.ino())
    }
}

/// Lines of `/proc/<pid>/cgroup` (cgroups(7)): controllers, none in version 2,
/// and the group's path. One that was removed under its process counts by its
/// name.
pub fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Some((controllers, path))
    })
}

/// Whether a list of names, separated by commas, has one.
pub fn names(list: &str, name: &str) -> bool {
    list.split(',').any(|one| one == name)
}

/// Directory of a group that may be a VM's own.
fn candidate(mount: &Mount, path: &str, level: usize) -> Option<PathBuf> {
    let slice = Path::new(path).extension().is_some_and(|e| e == "slice");
    if level > 0 && slice {
        return None;
    }
    mount.dir(path)
}

/// `libvirt` is a part only below a group of systemd's: /libvirt/qemu/NAME of
/// old versions does not end so.
fn is_part(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    let kind = last.trim_end_matches(|c: char| c.is_ascii_digit());
    PARTS.contains(&kind) || last == "libvirt"
}

#[cfg(test)]
mod tests;

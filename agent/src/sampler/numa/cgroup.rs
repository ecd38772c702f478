//! Memory by node of a cgroup that belongs to one VM alone.
//!
//! Documentation/admin-guide/cgroup-v2.rst (`memory.numa_stat`, bytes) and
//! cgroup-v1/memory.rst (pages); `hugetlb.<size>.numa_stat` since 5.17,
//! mm/hugetlb_cgroup.c (bytes).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::NodeBytes;
use super::maps::node;

/// Processes that stand beside a VMM in its cgroup and use little memory.
const COMPANIONS: &[&str] = &[
    "qemu",
    "kvm",
    "vhost-",
    "virt",
    "swtpm",
    "passt",
    "container-disk",
];

/// Where the cgroup hierarchies with memory are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    hugetlb: Option<PathBuf>,
}

/// What the cgroup of a VM says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupMemory {
    /// Anonymous and shared memory.
    pub memory: NodeBytes,
    /// Memory in pages of hugetlbfs, where the controller tells.
    pub huge: Option<NodeBytes>,
}

impl Mounts {
    /// From the text of `/proc/self/mountinfo`. A hierarchy of which another
    /// part than its root is mounted cannot be addressed by `/proc/P/cgroup`.
    pub fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else {
                continue;
            };
            let mount: Vec<&str> = mount.split(' ').collect();
            let (Some(&"/"), Some(point)) = (mount.get(3), mount.get(4)) else {
                continue;
            };
            let mut fs = fs.split(' ');
            let (kind, options) = (fs.next(), fs.nth(1).unwrap_or_default());
            let has = |controller| options.split(',').any(|o| o == controller);
            let point = || Some(PathBuf::from(point));
            match kind {
                Some("cgroup2") => mounts.unified = point(),
                Some("cgroup") if has("memory") => mounts.memory = point(),
                Some("cgroup") if has("hugetlb") => mounts.hugetlb = point(),
                _ => {}
            }
        }
        mounts
    }

    /// Memory of the cgroup that a process has to itself. `None` where it has
    /// none, or the kernel does not tell nodes. `cgroup` is the text of
    /// `/proc/<pid>/cgroup`.
    pub fn read(&self, proc: &Path, pid: u32, cgroup: &str) -> Option<CgroupMemory> {
        let path_of = |controller: &str| {
            cgroup.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                let wanted = controllers.split(',').any(|c| c == controller);
                wanted.then(|| path.trim_start_matches('/'))
            })
        };
        if let Some((root, path)) = self.memory.as_ref().zip(path_of("memory")) {
            let dir = own(proc, pid, root, path, "memory.numa_stat")?;
            let memory = v1(&read(&dir.join("memory.numa_stat"))?)?;
            let huge = self.hugetlb.as_ref().zip(path_of("hugetlb"));
            let huge = huge.filter(|(_, path)| !path.is_empty());
            let huge = huge.and_then(|(root, path)| huge_pages(&root.join(path)));
            return Some(CgroupMemory { memory, huge });
        }
        let (root, path) = (self.unified.as_ref()?, path_of("")?);
        let dir = own(proc, pid, root, path, "memory.numa_stat")?;
        Some(CgroupMemory {
            memory: v2(&read(&dir.join("memory.numa_stat"))?)?,
            huge: huge_pages(&dir),
        })
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The nearest cgroup with that file, if it holds the process and nobody else
/// but its companions. The process itself may be in a threaded cgroup below
/// (libvirt's `emulator`), which has no memory of its own.
fn own(proc: &Path, pid: u32, root: &Path, path: &str, file: &str) -> Option<PathBuf> {
    let mut path = Path::new(path);
    while !path.as_os_str().is_empty() {
        let dir = root.join(path);
        if dir.join(file).exists() {
            let procs = read(&dir.join("cgroup.procs"))?;
            let mut procs = procs.lines().filter_map(|l| l.parse::<u32>().ok());
            let (mut there, mut alone) = (false, true);
            procs.by_ref().for_each(|other| match other == pid {
                true => there = true,
                false => alone &= companion(proc, other),
            });
            return (there && alone).then_some(dir);
        }
        path = path.parent()?;
    }
    None
}

fn companion(proc: &Path, pid: u32) -> bool {
    // One that is gone meanwhile disturbs nobody.
    let comm = read(&proc.join(format!("{pid}/comm")));
    comm.is_none_or(|comm| {
        let vmm = crate::discover::cmdline::vmm(comm.trim()).is_some();
        !vmm && COMPANIONS.iter().any(|name| comm.starts_with(name))
    })
}

/// `anon N0=4096 N1=0`, bytes. Page cache (`file`) is no guest memory, but
/// shared memory counts as such and has a line of its own.
fn v2(text: &str) -> Option<NodeBytes> {
    sum(text, |name| matches!(name, "anon" | "shmem"), 1)
}

/// `hierarchical_anon=5 N0=3 N1=2`, pages; shared memory is on the anonymous
/// lists, locked memory on the unevictable one.
fn v1(text: &str) -> Option<NodeBytes> {
    let page = rustix::param::page_size() as u64;
    let counts = |name: &str| matches!(name, "hierarchical_anon" | "hierarchical_unevictable");
    sum(text, counts, page)
}

fn sum(text: &str, counts: impl Fn(&str) -> bool, unit: u64) -> Option<NodeBytes> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let name = fields.next()?;
        if counts(name.split('=').next()?) {
            for (node, amount) in fields.filter_map(node) {
                *sums.entry(node).or_default() += amount.saturating_mul(unit);
            }
        }
    }
    (!sums.is_empty()).then_some(sums)
}

/// Sum over all sizes of `hugetlb.2MB.numa_stat`, `hugetlb.1GB.numa_stat`.
fn huge_pages(dir: &Path) -> Option<NodeBytes> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let mut sums: Option<NodeBytes> = None;
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if !(name.starts_with("hugetlb.") && name.ends_with(".numa_stat")) {
            continue;
        }
        let text = read(&entry.path())?;
        let sums = sums.get_or_insert_with(NodeBytes::new);
        for (node, bytes) in sum(&text, |name| name == "total", 1)? {
            *sums.entry(node).or_default() += bytes;
        }
    }
    sums
}

#[cfg(test)]
mod tests;

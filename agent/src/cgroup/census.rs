//! Who is in a group.

use std::collections::HashSet;
use std::path::Path;

use crate::discover::cmdline;
use crate::files;

/// Helpers that platforms start beside a VMM into its cgroup; they work for
/// this VM alone. Names are cut at 15 bytes, as the kernel does.
const HELPERS: [&str; 14] = [
    "container-disk",
    "dbus-daemon",
    "passt",
    "passt.avx2",
    "qemu-bridge-hel",
    "qemu-pr-helper",
    "qemu-storage-da",
    "slirp4netns",
    "swtpm",
    "virt-launcher",
    "virt-launcher-m",
    "virtiofsd",
    "virtlogd",
    "virtqemud",
];

/// Groups and processes looked at for one VM. A VM has a group a vCPU and a
/// few helpers; past this bound the group is no VM's own.
const MAX_LOOKED_AT: usize = 4096;

/// Counts for one VM.
pub struct Census<'a> {
    pub proc: &'a Path,
    /// The VM's process.
    pub pid: u32,
    /// Further ids that belong to it: its vhost workers, which kernels before
    /// 6.4 run as kernel threads in its groups.
    pub of_vm: &'a HashSet<u32>,
    /// Whether it runs in a pod of its own, where all work for it but another
    /// VMM.
    pub pod: bool,
}

impl Census<'_> {
    /// Whether a group and those below hold the VM's process and nobody else.
    /// A threaded group, as of libvirt's parts, cannot tell its processes:
    /// they are listed above, and it is no stranger's.
    pub fn alone(&self, dir: &Path) -> bool {
        let (mut todo, mut looked_at) = (vec![dir.to_path_buf()], 0);
        let mut found = dir.is_dir() && files::text(dir.join("cgroup.procs")).is_none();
        while let Some(dir) = todo.pop() {
            let pids = files::text(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in listed(&pids) {
                found |= pid == self.pid;
                looked_at += 1;
                if looked_at > MAX_LOOKED_AT || self.is_stranger(&dir, pid) {
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

    fn is_stranger(&self, dir: &Path, pid: u32) -> bool {
        if self.belongs(pid) {
            return false;
        }
        // One that is gone meanwhile disturbs nobody; a hidden one does.
        let now = files::text(dir.join("cgroup.procs")).unwrap_or_default();
        listed(&now).any(|other| other == pid)
    }

    fn belongs(&self, pid: u32) -> bool {
        if pid == self.pid || self.of_vm.contains(&pid) || self.descends(pid) {
            return true;
        }
        let Some(comm) = files::line(self.proc.join(format!("{pid}/comm"))) else {
            return false;
        };
        let kernel_thread = comm
            .rsplit_once(['-', '/'])
            .filter(|(kind, _)| is_kernel_thread(kind));
        match kernel_thread {
            Some((_, of)) => of.parse() == Ok(self.pid),
            None if self.pod => cmdline::vmm(&comm).is_none(),
            None => HELPERS.contains(&comm.as_str()),
        }
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
        let stat = files::text(self.proc.join(format!("{pid}/stat")))?;
        // A comm may hold spaces and brackets; state and parent follow it.
        stat.get(stat.rfind(')')? + 1..)?
            .split_ascii_whitespace()
            .nth(1)?
            .parse()
            .ok()
    }
}

/// Processes in a `cgroup.procs`; 0 is one of another pid namespace.
fn listed(procs: &str) -> impl Iterator<Item = u32> {
    procs.lines().filter_map(|line| line.trim().parse().ok())
}

/// Kernel threads named after the VMM: `vhost-PID`, `kvm-pit/PID`, and
/// `kvm-nx-lpage-recovery-PID`, which older kernels (6.1) put into its cgroup
/// (`kvm_vm_worker_thread` in virt/kvm/kvm_main.c). A kernel thread's comm is
/// not cut at 15 bytes since 5.17.
fn is_kernel_thread(kind: &str) -> bool {
    matches!(kind, "vhost" | "kvm-pit" | "kvm-nx-lpage-recovery")
}

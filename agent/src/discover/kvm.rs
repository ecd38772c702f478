//! What KVM itself says in debugfs: every process that has a VM, and, since
//! Linux 5.19, the thread of each vCPU. Readable by uid 0 without capabilities
//! where debugfs is mounted. Tells vCPUs apart whose threads have no names.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::files;

/// KVM's directory in debugfs, the real one or a test's.
pub(super) struct KvmDebug {
    root: PathBuf,
}

impl KvmDebug {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Directories of each process with a VM: `<pid>-<fd>`.
    pub fn vms(&self) -> HashMap<u32, Vec<PathBuf>> {
        let mut vms: HashMap<u32, Vec<PathBuf>> = HashMap::new();
        for entry in std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let pid = name
                .to_str()
                .and_then(|n| n.split_once('-')?.0.parse().ok());
            if let Some(pid) = pid {
                vms.entry(pid).or_default().push(entry.path());
            }
        }
        vms
    }
}

/// vCPU number of each thread that has entered its guest. A process with
/// several VMs is none that we know; the first one counts.
pub(super) fn vcpus(dirs: &[PathBuf]) -> HashMap<u32, u32> {
    let entries = dirs
        .iter()
        .take(1)
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten();
    let vcpu = |entry: std::fs::DirEntry| {
        let number = entry
            .file_name()
            .to_str()?
            .strip_prefix("vcpu")?
            .parse()
            .ok()?;
        let tid: u32 = files::number(entry.path().join("pid"))?;
        (tid > 0).then_some((tid, number))
    };
    entries.filter_map(vcpu).collect()
}

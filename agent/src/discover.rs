//! Finds the virtual machines of this host and the threads they run on.
//!
//! Everything here reads `/proc`, and debugfs for vCPU threads without names;
//! it needs no capability once the process runs as root, and never fails as a
//! whole: a process that vanishes between
//! two reads is simply not there.

pub mod cmdline;
mod kvm;
mod proc;
mod scan;
pub mod threads;

use std::sync::Arc;

pub use cmdline::VmInfo;
pub use scan::Discovery;
pub use threads::Role;

/// What tells one VM process from every other, so that neither pid reuse nor
/// a migration to the same host mixes two VMs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmKey {
    /// `/proc/sys/kernel/random/boot_id` of the host.
    pub boot: Arc<str>,
    /// Process id of the VMM.
    pub pid: u32,
    /// Start of the process, clock ticks since boot.
    pub start_ticks: u64,
    /// UUID given to the VM, lower case.
    pub uuid: Option<String>,
}

impl VmKey {
    /// Name of this run of the VM where no UUID tells: unique over reboots,
    /// the same again after a restart of the agent. The start alone is not
    /// enough: two processes may start in one tick of 10 ms.
    #[must_use]
    pub fn started(&self) -> String {
        let boot = self.boot.get(..8).unwrap_or(&self.boot);
        format!("{boot}.{}.{}", self.start_ticks, self.pid)
    }
}

/// One thread, safe against reuse of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadKey {
    /// Thread id.
    pub tid: u32,
    /// Start of the thread, clock ticks since boot.
    pub start_ticks: u64,
}

/// A thread and what it does for its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmThread {
    /// Which thread.
    pub key: ThreadKey,
    /// Thread group it belongs to: the VMM, or the thread itself for a vhost
    /// worker that is a kernel thread.
    pub pid: u32,
    /// What it does.
    pub role: Role,
}

/// One live VM as one scan saw it.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Which VM process.
    pub key: VmKey,
    /// What its command line says.
    pub info: Arc<VmInfo>,
    /// Stable id for rows: the UUID, else `name@` and [`VmKey::started`]. A younger live
    /// process of the same UUID (a live migration within the host) is
    /// `uuid@` and the same until the older one is gone.
    pub id: String,
    /// Its threads, vCPUs and all others.
    pub threads: Vec<VmThread>,
}

/// Whether that process still is the one of the key, by its start.
pub(crate) fn is_still(proc: &std::path::Path, key: &VmKey) -> bool {
    proc::Proc::new(proc.into())
        .stat(key.pid)
        .is_some_and(|stat| stat.start_ticks == key.start_ticks)
}

/// Gives each VM its id; of several with one UUID the oldest keeps it.
fn assign_ids(vms: &mut [Vm]) {
    vms.sort_by_key(|vm| (vm.key.start_ticks, vm.key.pid));
    let mut taken = std::collections::HashSet::new();
    for vm in vms {
        vm.id = match &vm.key.uuid {
            Some(uuid) if taken.insert(uuid.clone()) => uuid.clone(),
            Some(uuid) => format!("{uuid}@{}", vm.key.started()),
            None => format!("{}@{}", vm.info.name, vm.key.started()),
        };
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

//! The scan of `/proc`, cheap enough for each second.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::cmdline::{self, Vmm};
use super::kvm::{self, KvmDebug};
use super::proc::{Entry, Proc};
use super::threads::{self, Role};
use super::{ThreadKey, Vm, VmInfo, VmKey, VmThread, assign_ids};

/// Scans in which a new thread's name is read again: a thread gets its own
/// name only after it has started, until then it carries its creator's.
const SETTLING_SCANS: u8 = 3;

/// Scans after which a VMM without any named vCPU is reported.
const NAMELESS_SCANS: u8 = 5;

/// Finds VMs and remembers what it need not read again.
pub struct Discovery {
    proc: Proc,
    kvm: KvmDebug,
    boot: Arc<str>,
    known: HashMap<u32, Known>,
    nameless: Vec<String>,
}

struct Known {
    inode: u64,
    what: What,
    seen: bool,
}

enum What {
    /// Never becomes anything else.
    KernelThread {
        vhost: Option<VmThread>,
        owner: u32,
    },
    /// No VMM as long as it does not execute another program, which shows in
    /// its name.
    Other {
        comm: String,
    },
    Vmm(Box<Process>),
}

struct Process {
    vmm: Vmm,
    key: VmKey,
    info: Arc<VmInfo>,
    threads: HashMap<u32, Thread>,
    /// Whether the vCPU threads of the last scan are all gone.
    replaced: bool,
    /// Whether its vCPU threads have no names of their own.
    asks_kvm: bool,
    nameless_scans: u8,
}

struct Thread {
    inode: u64,
    key: ThreadKey,
    role: Role,
    settling: u8,
    seen: bool,
}

impl Discovery {
    /// A discovery over that `/proc` and KVM's directory in debugfs, which
    /// need not exist.
    #[must_use]
    pub fn new(proc: PathBuf, kvm: PathBuf) -> Self {
        let proc = Proc::new(proc);
        let boot = proc.boot_id().unwrap_or_default().into();
        Self {
            proc,
            kvm: KvmDebug::new(kvm),
            boot,
            known: HashMap::new(),
            nameless: Vec::new(),
        }
    }

    /// All VMs that have a vCPU thread now, in order of their start.
    pub fn scan(&mut self) -> Vec<Vm> {
        self.known.values_mut().for_each(|k| k.seen = false);
        for entry in self.proc.processes() {
            self.visit(&entry);
        }
        self.known.retain(|_, k| k.seen);
        let kvm = self.kvm.vms();
        self.adopt_strangers(kvm.keys());
        let mut vhosts: HashMap<u32, Vec<VmThread>> = HashMap::new();
        for known in self.known.values() {
            if let What::KernelThread {
                vhost: Some(thread),
                owner,
            } = known.what
            {
                vhosts.entry(owner).or_default().push(thread);
            }
        }
        let mut vms = Vec::new();
        for known in self.known.values_mut() {
            if let What::Vmm(process) = &mut known.what {
                process.read_threads(&self.proc);
                process.ask_kvm(&kvm);
                self.nameless.extend(process.nameless());
                vms.extend(process.vm(&vhosts));
            }
        }
        assign_ids(&mut vms);
        vms
    }

    /// Names of VMs found since the last call whose vCPU threads cannot be
    /// told apart; each is given once.
    pub fn take_nameless(&mut self) -> Vec<String> {
        std::mem::take(&mut self.nameless)
    }

    /// Processes that have a VM and are no VMM by their program.
    fn adopt_strangers<'a>(&mut self, pids: impl Iterator<Item = &'a u32>) {
        for pid in pids {
            let Some(known) = self.known.get_mut(pid) else {
                continue;
            };
            let What::Other { comm } = &known.what else {
                continue;
            };
            let Some(stat) = self.proc.stat(*pid) else {
                continue;
            };
            let info = VmInfo::stranger(comm, *pid);
            known.what = What::Vmm(Box::new(Process::new(
                Vmm::Other,
                &self.boot,
                *pid,
                stat.start_ticks,
                info,
            )));
        }
    }

    fn visit(&mut self, entry: &Entry) {
        let old = match self.known.get_mut(&entry.id) {
            Some(known) => {
                if known.still(entry, &self.proc) {
                    known.seen = true;
                    return;
                }
                known.what.key().cloned()
            }
            None => None,
        };
        // Another VM with the key of the one before, as after execution of
        // another VMM in its process: one scan without any tells them apart.
        let another = |what: &What| old.is_none() || what.key() != old.as_ref();
        match self.examine(entry).filter(another) {
            Some(what) => self.known.insert(
                entry.id,
                Known {
                    inode: entry.inode,
                    what,
                    seen: true,
                },
            ),
            None => self.known.remove(&entry.id),
        };
    }

    fn examine(&self, entry: &Entry) -> Option<What> {
        let pid = entry.id;
        let stat = self.proc.stat(pid)?;
        let comm = self.proc.comm(pid)?;
        if stat.kernel_thread {
            if comm == "kthreadd" && pid != 2 {
                return None; // not named yet
            }
            let owner = threads::vhost_owner(&comm);
            let key = ThreadKey {
                tid: pid,
                start_ticks: stat.start_ticks,
            };
            let vhost = owner.map(|_| VmThread {
                key,
                pid,
                role: Role::Vhost,
            });
            return Some(What::KernelThread {
                vhost,
                owner: owner.unwrap_or(0),
            });
        }
        let args = cmdline::split(&self.proc.cmdline(pid)?);
        if args.is_empty() {
            // In the midst of exec a process has its new name and no arguments
            // yet; a zombie never has any again.
            return None;
        }
        let exe = || self.proc.exe(pid).and_then(|path| cmdline::vmm(&path));
        let vmm = args
            .first()
            .and_then(|program| cmdline::vmm(program))
            .or_else(exe);
        let Some(vmm) = vmm else {
            return Some(What::Other { comm });
        };
        let info = cmdline::parse(vmm, &args, pid);
        let process = Process::new(vmm, &self.boot, pid, stat.start_ticks, info);
        // The number may have become another process's between the two reads.
        let same = self.proc.stat(pid)?.start_ticks == stat.start_ticks;
        same.then(|| What::Vmm(Box::new(process)))
    }
}

impl What {
    fn key(&self) -> Option<&VmKey> {
        match self {
            Self::Vmm(process) => Some(&process.key),
            Self::KernelThread { .. } | Self::Other { .. } => None,
        }
    }
}

impl Known {
    /// Whether the entry is still the process that was examined.
    fn still(&mut self, entry: &Entry, proc: &Proc) -> bool {
        let same_inode = std::mem::replace(&mut self.inode, entry.inode) == entry.inode;
        match &mut self.what {
            What::KernelThread { .. } => same_inode,
            What::Other { comm } => {
                same_inode && proc.comm(entry.id).as_ref() == Some(comm) && !may_exec_vmm(comm)
            }
            // Ticks are 10 ms long: the start alone does not tell processes
            // apart whose number was reused at once.
            What::Vmm(p) => {
                (same_inode && !p.replaced)
                    || (proc
                        .stat(entry.id)
                        .is_some_and(|s| s.start_ticks == p.key.start_ticks)
                        && p.has_same_arguments(proc))
            }
        }
    }
}

/// A wrapper script named like the VMM that it is about to execute keeps its
/// name: look again each time.
fn may_exec_vmm(comm: &str) -> bool {
    comm.starts_with("qemu-") || comm == "kvm"
}

impl Process {
    fn new(vmm: Vmm, boot: &Arc<str>, pid: u32, start_ticks: u64, info: VmInfo) -> Self {
        let key = VmKey {
            boot: boot.clone(),
            pid,
            start_ticks,
            uuid: info.uuid.clone(),
        };
        Self {
            vmm,
            key,
            info: Arc::new(info),
            threads: HashMap::new(),
            replaced: false,
            asks_kvm: false,
            nameless_scans: 0,
        }
    }

    /// Whether the command line still describes this VM.
    fn has_same_arguments(&self, proc: &Proc) -> bool {
        if self.vmm == Vmm::Other {
            return true;
        }
        let pid = self.key.pid;
        proc.cmdline(pid).is_some_and(|bytes| {
            cmdline::parse(self.vmm, &cmdline::split(&bytes), pid) == *self.info
        })
    }

    /// Tells vCPU threads without names by KVM's own word. Once that was
    /// needed it is asked each time, for vCPUs that are plugged in later.
    fn ask_kvm(&mut self, kvm: &HashMap<u32, Vec<PathBuf>>) {
        if !self.asks_kvm && self.has_vcpu() {
            return;
        }
        let Some(dirs) = kvm.get(&self.key.pid) else {
            return;
        };
        for (tid, number) in kvm::vcpus(dirs) {
            if let Some(thread) = self.threads.get_mut(&tid) {
                (thread.role, thread.settling) = (Role::Vcpu(number), 0);
                self.asks_kvm = true;
            }
        }
    }

    fn read_threads(&mut self, proc: &Proc) {
        let pid = self.key.pid;
        let before = self.vcpus();
        self.threads.values_mut().for_each(|t| t.seen = false);
        for entry in proc.threads(pid) {
            let same = |t: &Thread| {
                t.inode == entry.inode
                    || proc
                        .thread_stat(pid, entry.id)
                        .is_some_and(|s| s.start_ticks == t.key.start_ticks)
            };
            if !self.threads.get(&entry.id).is_some_and(same) {
                let Some(stat) = proc.thread_stat(pid, entry.id) else {
                    continue;
                };
                let key = ThreadKey {
                    tid: entry.id,
                    start_ticks: stat.start_ticks,
                };
                let thread = Thread {
                    inode: 0,
                    key,
                    role: Role::Emulator,
                    settling: SETTLING_SCANS,
                    seen: true,
                };
                self.threads.insert(entry.id, thread);
            }
            let Some(thread) = self.threads.get_mut(&entry.id) else {
                continue;
            };
            (thread.seen, thread.inode) = (true, entry.inode);
            if thread.settling > 0 {
                thread.settling -= 1;
                let comm = proc.thread_comm(pid, entry.id);
                thread.role = comm.map_or(thread.role, |comm| threads::role(self.vmm, &comm));
            }
        }
        self.threads.retain(|_, t| t.seen);
        // A VM keeps its first vCPU as long as it lives. If all are gone, it
        // is gone, and what runs in its process now is looked at again.
        let kept = |key: &ThreadKey| self.threads.get(&key.tid).is_some_and(|t| t.key == *key);
        self.replaced = !before.is_empty() && !before.iter().any(kept);
    }

    fn vcpus(&self) -> Vec<ThreadKey> {
        let vcpus = self.threads.values();
        vcpus
            .filter(|t| matches!(t.role, Role::Vcpu(_)))
            .map(|t| t.key)
            .collect()
    }

    fn has_vcpu(&self) -> bool {
        self.threads
            .values()
            .any(|t| matches!(t.role, Role::Vcpu(_)))
    }

    /// The VM, once a vCPU runs: a VMM asked for its version, a capability
    /// probe and the child that QEMU forks to run a script have none.
    fn vm(&self, vhosts: &HashMap<u32, Vec<VmThread>>) -> Option<Vm> {
        if self.replaced || !self.has_vcpu() {
            return None;
        }
        let pid = self.key.pid;
        let mut all: Vec<VmThread> = self
            .threads
            .values()
            .map(|t| VmThread {
                key: t.key,
                pid,
                role: t.role,
            })
            .collect();
        // A worker is named after the thread that became its owner, and
        // cannot be older than its VMM: else the number was another's.
        let workers = self.threads.keys().filter_map(|tid| vhosts.get(tid));
        let own = |worker: &&VmThread| worker.key.start_ticks >= self.key.start_ticks;
        all.extend(workers.flatten().filter(own));
        all.sort_by_key(|t| (t.role, t.key));
        Some(Vm {
            key: self.key.clone(),
            info: self.info.clone(),
            id: String::new(),
            threads: all,
        })
    }

    fn nameless(&mut self) -> Option<String> {
        // `-machine none` is a capability probe.
        let real = self.info.machine.as_deref() != Some("none") && self.threads.len() > 2;
        self.nameless_scans = match (self.has_vcpu() || !real, self.nameless_scans) {
            (true, _) => 0,
            (false, n) => n.saturating_add(1),
        };
        (self.nameless_scans == NAMELESS_SCANS).then(|| self.info.name.clone())
    }
}

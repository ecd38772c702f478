//! What can go wrong with the probes, and what to do about it.

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{BtfError, EbpfError};
use rustix::io::Errno;

/// Why the probes can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The configuration says so.
    #[error("probes are switched off by the configuration")]
    Disabled,
    /// The reader relies on the memory order of x86-64.
    #[error("probes support x86-64 hosts only so far")]
    Architecture,
    /// The process may not use BPF.
    #[error(
        "BPF needs {missing}; run as root or grant it (systemd: AmbientCapabilities={missing})"
    )]
    MissingCapability {
        /// The names, separated by spaces.
        missing: String,
    },
    /// The kernel describes no types.
    #[error("no kernel BTF at {path}; use a kernel with CONFIG_DEBUG_INFO_BTF=y")]
    NoKernelBtf {
        /// Where it should be.
        path: &'static str,
        /// Why it was not read.
        source: std::io::Error,
    },
    /// The kernel's BTF is not as expected.
    #[error("kernel BTF: {problem}; a kernel from 6.1 to 6.18 is known to work")]
    KernelBtf {
        /// What is wrong.
        problem: String,
    },
    /// aya's own look at the BTF failed.
    #[error("kernel BTF can't be parsed")]
    ParseBtf {
        /// Why.
        source: BtfError,
    },
    /// The embedded object is not for this agent.
    #[error("the BPF object does not fit this agent; rebuild it with `cargo xtask ebpf`")]
    Object {
        /// Why.
        source: HeaderError,
    },
    /// CPUs or pids of the host are unknown.
    #[error("host topology: {path} can't be read")]
    Topology {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel has no memory for the maps.
    #[error(
        "no memory for the BPF maps ({slots} slots); lower the number of slots, or raise the memory limit or RLIMIT_MEMLOCK"
    )]
    Memory {
        /// Slots asked for.
        slots: u16,
        /// The kernel's answer.
        source: EbpfError,
    },
    /// Maps or object refused.
    #[error("the BPF object can't be loaded")]
    Load {
        /// Why.
        source: EbpfError,
    },
    /// The kernel refused with EPERM although the capabilities are there.
    #[error(
        "{kind} {program} is forbidden on this host although the capabilities are there; look at seccomp, lockdown (/sys/kernel/security/lockdown) or another security module"
    )]
    Forbidden {
        /// `tp_btf` or `raw_tp`.
        kind: &'static str,
        /// The program.
        program: &'static str,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// A program was refused.
    #[error("{kind} {program} can't be attached")]
    Attach {
        /// `tp_btf` or `raw_tp`.
        kind: &'static str,
        /// The program.
        program: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// The object lacks a part that this agent needs.
    #[error("the BPF object has no {what}; rebuild it with `cargo xtask ebpf`")]
    MissingPart {
        /// A map or a program.
        what: String,
    },
    /// A map refused an operation.
    #[error("{operation} a BPF map failed")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map can't be read by memory.
    #[error("BPF map {map} can't be mapped")]
    Mmap {
        /// Name of the map.
        map: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel does not measure its programs for us.
    #[error("BPF run time statistics can't be switched on; they need CAP_SYS_ADMIN")]
    Stats {
        /// Why.
        source: aya::sys::SyscallError,
    },
    /// The kernel does not tell about a program.
    #[error("an attached BPF program can't be looked at")]
    ProgramInfo {
        /// Why.
        source: ProgramError,
    },
    /// All slots are taken.
    #[error("all {capacity} probe slots are taken; raise the number of slots")]
    SlotsFull {
        /// Slots there are.
        capacity: usize,
    },
    /// The thread has a slot already.
    #[error("thread {tid} is registered already")]
    AlreadyRegistered {
        /// The thread.
        tid: u32,
    },
    /// kernel.pid_max was raised after the probes were attached, or tid 0.
    #[error(
        "thread {tid} is not within 1..{pids}, the pid map; restart the agent if kernel.pid_max was raised"
    )]
    PidOutOfRange {
        /// The thread.
        tid: u32,
        /// Pids in the map.
        pids: u32,
    },
}

/// Why a BPF object is refused before anything of it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not an ELF file.
    #[error("not an ELF object: {0}")]
    NotElf(String),
    /// No header section.
    #[error("no section {}", headroom_abi::HEADER_SECTION)]
    Missing,
    /// The header has another size or magic.
    #[error("section {} is no header of ours", headroom_abi::HEADER_SECTION)]
    Magic,
    /// Built against another abi.
    #[error("abi version {found}, but this agent has {expected}")]
    Version {
        /// Of the object.
        found: u32,
        /// Of this agent.
        expected: u32,
    },
}

/// Whether the kernel's answer, anywhere in the chain, was `errno`.
pub(super) fn answered(error: &(dyn std::error::Error + 'static), errno: Errno) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.raw_os_error() == Some(errno.raw_os_error())
        {
            return true;
        }
        next = error.source();
    }
    false
}

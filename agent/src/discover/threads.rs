//! What a thread of a VMM does, by its name. Pure functions.

use headroom_abi::tag;

use super::cmdline::Vmm;

/// What a thread does for its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs the vCPU of that number.
    Vcpu(u32),
    /// Serves block or network queues within the VMM.
    IoThread,
    /// Serves queues within the kernel.
    Vhost,
    /// Anything else in the process: main loop, workers, migration, VNC, QMP.
    Emulator,
}

impl Role {
    /// The role as the probes know it.
    #[must_use]
    pub const fn tag(self) -> u32 {
        match self {
            Self::Vcpu(_) => tag::role::VCPU,
            Self::IoThread => tag::role::IOTHREAD,
            Self::Vhost => tag::role::VHOST,
            Self::Emulator => tag::role::EMULATOR,
        }
    }
}

/// Role of a thread of a VMM. Names that look alike and are none of these
/// (`IO mon_iothread` serves QMP, `kvm-nx-lpage-re` and `kvm-pit/PID` are the
/// kernel's, `call_rcu` and `worker` are QEMU's own) are emulator threads.
#[must_use]
pub fn role(vmm: Vmm, comm: &str) -> Role {
    let vcpu = match vmm {
        Vmm::Qemu => qemu_vcpu(comm),
        Vmm::Firecracker => number(comm, "fc_vcpu "),
        Vmm::CloudHypervisor => number(comm, "vcpu"),
        Vmm::Other => None,
    };
    if let Some(n) = vcpu {
        return Role::Vcpu(n);
    }
    let io = match vmm {
        Vmm::Qemu => comm.starts_with("IO ") && comm != "IO mon_iothread",
        Vmm::Firecracker | Vmm::Other => false,
        Vmm::CloudHypervisor => comm.starts_with("_disk") || comm.starts_with("_net"),
    };
    match (io, vhost_owner(comm)) {
        (true, _) => Role::IoThread,
        (_, Some(_)) => Role::Vhost,
        _ => Role::Emulator,
    }
}

/// Owner named in `vhost-PID` or, since 6.4, `vhost-PID` of the thread that
/// was the owner then.
#[must_use]
pub fn vhost_owner(comm: &str) -> Option<u32> {
    number(comm, "vhost-")
}

fn qemu_vcpu(comm: &str) -> Option<u32> {
    if comm == "ALL CPUs/TCG" {
        return Some(0);
    }
    let (n, accel) = comm.strip_prefix("CPU ")?.split_once('/')?;
    // A name is cut at 15 bytes: "CPU 1000000/KVM" still fits.
    matches!(accel, "KVM" | "TCG").then(|| digits(n)).flatten()
}

fn number(comm: &str, prefix: &str) -> Option<u32> {
    digits(comm.strip_prefix(prefix)?)
}

fn digits(text: &str) -> Option<u32> {
    let all = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

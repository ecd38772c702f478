//! What this host runs on: bare metal or another hypervisor.

use crate::files;

/// A hypervisor below this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hypervisor {
    /// `kvm`, `vmware`, …, or the vendor's own mark.
    pub name: String,
    /// Whether it tells how much time it takes.
    pub steal_clock: StealClock,
}

/// Whether steal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StealClock {
    /// The hypervisor offers it and the kernel uses it.
    Yes,
    /// Not offered: figures are always 0.
    No,
    /// It can't be told.
    Unknown,
}

/// The hypervisor, by the CPU's own word; where that is not to be had, by the
/// kernel's. `None` on bare metal.
pub fn detect() -> Option<Hypervisor> {
    let read = |path: &str| files::text(path).unwrap_or_default();
    let flagged = has_flag(&read("/proc/cpuinfo"));
    if let Some((mark, features)) = cpuid().filter(|_| flagged) {
        return Some(of_cpuid(&mark, features));
    }
    let name = [
        read("/sys/hypervisor/type"),
        read("/sys/class/dmi/id/sys_vendor"),
    ];
    let name = name.iter().map(|t| t.trim()).find(|t| !t.is_empty());
    flagged.then(|| Hypervisor {
        name: name.unwrap_or("unknown hypervisor").to_owned(),
        steal_clock: StealClock::Unknown,
    })
}

fn has_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|l| l.starts_with("flags"));
    flags.is_some_and(|l| l.split_ascii_whitespace().any(|f| f == "hypervisor"))
}

/// Leaf 0x4000_0000, the mark, and leaf 0x4000_0001, features.
#[cfg(target_arch = "x86_64")]
fn cpuid() -> Option<(String, u32)> {
    use std::arch::x86_64::__cpuid;
    let top = __cpuid(0x4000_0000);
    let mark: Vec<u8> = [top.ebx, top.ecx, top.edx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .filter(|b| *b != 0)
        .collect();
    let mark = String::from_utf8(mark).ok().filter(|m| !m.is_empty())?;
    // KVM below 2.6 said 0 for the highest leaf.
    let features = __cpuid(0x4000_0001).eax;
    Some((mark, features))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpuid() -> Option<(String, u32)> {
    None
}

fn of_cpuid(mark: &str, features: u32) -> Hypervisor {
    /// KVM_FEATURE_STEAL_TIME of arch/x86/include/uapi/asm/kvm_para.h.
    const STEAL_TIME: u32 = 1 << 5;
    let (name, steal_clock) = match mark {
        "KVMKVMKVM" if features & STEAL_TIME != 0 => ("kvm", StealClock::Yes),
        "KVMKVMKVM" => ("kvm", StealClock::No),
        // Runstate areas belong to every Xen guest.
        "XenVMMXenVMM" => ("xen", StealClock::Yes),
        "Microsoft Hv" => ("hyperv", StealClock::Unknown),
        "TCGTCGTCGTCG" => ("qemu", StealClock::No),
        "VMwareVMware" => ("vmware", StealClock::Unknown),
        other => (other, StealClock::Unknown),
    };
    Hypervisor {
        name: name.to_owned(),
        steal_clock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let clock = |mark, features| of_cpuid(mark, features).steal_clock;
        assert_eq!(clock("KVMKVMKVM", 0x0100_7efb), StealClock::Yes);
        assert_eq!(clock("KVMKVMKVM", 0x0100_7edb), StealClock::No);
        assert_eq!(clock("TCGTCGTCGTCG", u32::MAX), StealClock::No);
        assert_eq!(clock("VMwareVMware", 0), StealClock::Unknown);
        assert_eq!(of_cpuid("bhyve bhyve ", 0).name, "bhyve bhyve ");
    }

    #[test]
    fn the_flag_is_a_word_of_its_own() {
        assert!(has_flag(
            "processor\t: 0\nflags\t\t: fpu hypervisor lahf_lm\n"
        ));
        assert!(!has_flag("flags\t\t: fpu nohypervisor\nbugs: hypervisor\n"));
    }

    #[test]
    fn this_host() {
        let flagged = has_flag(&std::fs::read_to_string("/proc/cpuinfo").unwrap());
        assert_eq!(detect().is_some(), flagged);
    }
}

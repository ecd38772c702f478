//! Who a thread belongs to: one number for a VM and a role.

/// Roles, the low byte of a tag. Those of host tasks have no VM.
pub mod role {
    /// Not known yet.
    pub const UNKNOWN: u32 = 0;
    /// Runs a vCPU.
    pub const VCPU: u32 = 1;
    /// Serves queues within the VMM.
    pub const IOTHREAD: u32 = 2;
    /// Serves queues within the kernel.
    pub const VHOST: u32 = 3;
    /// Any other thread of the VMM.
    pub const EMULATOR: u32 = 4;
    /// A task of the host in user space.
    pub const HOST: u32 = 5;
    /// A kernel thread.
    pub const KERNEL: u32 = 6;
    /// The idle task.
    pub const IDLE: u32 = 7;
}

/// Number of roles.
pub const ROLES: usize = 8;

/// Tag of a task of the host in user space.
pub const HOST: u32 = role::HOST;
/// Tag of a kernel thread.
pub const KERNEL: u32 = role::KERNEL;
/// Tag of the idle task.
pub const IDLE: u32 = role::IDLE;

/// Tag of a thread of VM number `vm`; 0 stands for a VM without a number.
#[inline(always)]
#[must_use]
pub const fn of(vm: u16, role: u32) -> u32 {
    ((vm as u32) << 8) | role
}

/// Number of the VM, 0 for none.
#[inline(always)]
#[must_use]
pub const fn vm(tag: u32) -> u32 {
    tag >> 8
}

/// Role, an index below [`ROLES`].
#[inline(always)]
#[must_use]
pub const fn role(tag: u32) -> u32 {
    tag & 7
}

/// Whether it is a thread of a VM, whatever its number.
#[inline(always)]
#[must_use]
pub const fn is_vm(tag: u32) -> bool {
    let role = role(tag);
    role != role::UNKNOWN && role < role::HOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_holds_both() {
        let tag = of(511, role::EMULATOR);
        assert_eq!(
            (vm(tag), role(tag), is_vm(tag)),
            (511, role::EMULATOR, true)
        );
        for host in [HOST, KERNEL, IDLE, role::UNKNOWN] {
            assert_eq!((vm(host), is_vm(host)), (0, false));
        }
        assert!(is_vm(of(0, role::VCPU)));
    }
}

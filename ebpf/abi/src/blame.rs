//! Who ran on a CPU while somebody waited for it: the log of each CPU and the
//! walk over it, the same in the kernel and in user space.

use crate::tag;

/// Kinds of culprits, indices of [`crate::sched::SlotStats::blame_ns`].
pub mod kind {
    /// Another VM.
    pub const VM: usize = 0;
    /// Another thread of the VM itself.
    pub const OWN: usize = 1;
    /// A task of the host in user space.
    pub const HOST: usize = 2;
    /// A kernel thread.
    pub const KERNEL: usize = 3;
    /// Interrupts and soft interrupts.
    pub const INTERRUPT: usize = 4;
    /// Nobody: the CPU was idle until the wake-up reached it.
    pub const IDLE: usize = 5;
    /// Not known: further back than the log reaches.
    pub const UNKNOWN: usize = 6;
}

/// Number of kinds, rounded up for indexing by mask.
pub const KINDS: usize = 8;

/// Segments that a CPU's log holds; a power of two. With slices of 3 ms it
/// reaches 0.8 s back.
pub const LOG_LEN: usize = 256;

/// Segments that a walk looks at before it gives up. A wait is mostly one or
/// two segments long; a step takes some 15 ns.
pub const MAX_STEPS: usize = LOG_LEN;

/// A time on one CPU with one owner. Tasks of the host that follow one another
/// are one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Segment {
    /// When it began, `CLOCK_MONOTONIC` ns.
    pub start_ns: u64,
    /// [`crate::sched::CpuStats::irq_ns`] at that time.
    pub irq_ns: u64,
    /// Whose, see [`tag`].
    pub tag: u32,
    /// Thread that began it.
    pub pid: u32,
}

/// Finished segments of one CPU, a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct CpuLog {
    /// Segment number `n` lies at `n % LOG_LEN`.
    pub segments: [Segment; LOG_LEN],
}

/// Kind of culprit that a segment's owner is for a victim of VM number `vm`.
#[inline(always)]
#[must_use]
pub const fn kind_of(owner: u32, vm: u32) -> usize {
    if tag::is_vm(owner) {
        // Two VMs without numbers can't be told apart: another VM.
        return if vm != 0 && tag::vm(owner) == vm {
            kind::OWN
        } else {
            kind::VM
        };
    }
    match tag::role(owner) {
        tag::HOST => kind::HOST,
        tag::KERNEL => kind::KERNEL,
        tag::IDLE => kind::IDLE,
        _ => kind::UNKNOWN,
    }
}

/// Part of a segment's interrupt time that fell into `overlap` of its
/// `length`; the log does not know when within it.
#[inline(always)]
#[must_use]
pub const fn interrupts(irq_ns: u64, overlap: u64, length: u64) -> u64 {
    if irq_ns == 0 || length == 0 {
        return 0;
    }
    let part = if overlap >= length {
        irq_ns
    } else if length >> 31 == 0 {
        // Below 2.1 s, as nearly always: no product overflows.
        irq_ns * overlap / length
    } else {
        irq_ns * (overlap >> 16) / (length >> 16)
    };
    if part < overlap { part } else { overlap }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::role;

    #[test]
    fn kinds() {
        let of = |vm, role| tag::of(vm, role);
        assert_eq!(kind_of(of(2, role::VCPU), 1), kind::VM);
        assert_eq!(kind_of(of(1, role::IOTHREAD), 1), kind::OWN);
        assert_eq!(kind_of(of(0, role::VCPU), 0), kind::VM);
        assert_eq!(kind_of(tag::HOST, 1), kind::HOST);
        assert_eq!(kind_of(tag::KERNEL, 1), kind::KERNEL);
        assert_eq!(kind_of(tag::IDLE, 1), kind::IDLE);
        assert_eq!(kind_of(role::UNKNOWN, 1), kind::UNKNOWN);
    }

    #[test]
    fn interrupts_are_shared_by_overlap() {
        assert_eq!(interrupts(0, 10, 10), 0);
        assert_eq!(interrupts(500, 1_000, 1_000), 500);
        assert!(interrupts(1_000_000, 5_000_000, 10_000_000).abs_diff(500_000) < 100);
        assert_eq!(interrupts(900, 300, 900), 300);
        assert!(interrupts(100, 50, 100) <= 50);
    }
}

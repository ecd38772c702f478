//! What a `struct request` of the kernel says of itself.

use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use headroom_abi::block::{BlockOffsets, DiskKey, OpenRequest, op};
use headroom_abi::tag;

use super::table;
use crate::maps;
use crate::task::{Task, TaskPtr};

/// A `struct request *`.
pub type RequestPtr = *const u8;

/// Frozen before the programs are verified.
#[unsafe(no_mangle)]
static BLOCK_OFFSETS: BlockOffsets = BlockOffsets {
    rq_queue: 0,
    rq_flags: 0,
    rq_bytes: 0,
    rq_bio: 0,
    rq_start: 0,
    queue_disk: 0,
    disk_major: 0,
    disk_minor: 0,
    bio_blkg: 0,
    blkg_blkcg: 0,
    blkcg_cgroup: 0,
    cgroup_node: 0,
    node_id: 0,
    has_cgroups: 0,
    has_io_start: 0,
    pad: 0,
};

macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a field of a global of this object.
        unsafe { core::ptr::read_volatile(&raw const BLOCK_OFFSETS.$field) }
    };
}

/// Operations, the low byte of `request.cmd_flags` (enum req_op of
/// include/linux/blk_types.h), with the numbers that 6.1 to 6.18 share.
mod req_op {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const FLUSH: u32 = 2;
    pub const DISCARD: u32 = 3;
    pub const SECURE_ERASE: u32 = 5;
    pub const ZONE_APPEND: u32 = 7;
    pub const WRITE_ZEROES: u32 = 9;
}

/// Whether every request has a `block_io_start`.
#[inline(always)]
pub fn has_io_start() -> bool {
    offset!(has_io_start) != 0
}

/// A request of the kernel, read by `T`.
pub struct Request<T> {
    rq: RequestPtr,
    by: PhantomData<T>,
}

impl<T: Task> Request<T> {
    #[inline(always)]
    pub fn of(rq: RequestPtr) -> Self {
        Self {
            rq,
            by: PhantomData,
        }
    }

    /// A record that begins at `start_ns`. `current` says whether the present
    /// task may be the one that submitted it.
    #[inline(always)]
    pub fn opened(&self, start_ns: u64, current: bool) -> OpenRequest {
        OpenRequest {
            start_ns,
            issue_ns: 0,
            key: DiskKey {
                vm: self.vm(current),
                device: self.device(),
                op: self.op(),
            },
            bytes: self.bytes(),
        }
    }

    /// Bytes not yet completed.
    #[inline(always)]
    pub fn bytes(&self) -> u32 {
        T::word(self.rq, offset!(rq_bytes) as usize)
    }

    /// When the kernel made it; `else_ns` where the kernel did not note it
    /// (`iostats` off) or notes a time after `now`.
    #[inline(always)]
    pub fn start_or(&self, else_ns: u64, now: u64) -> u64 {
        let start = T::long(self.rq, offset!(rq_start) as usize);
        if start == 0 || start > now {
            return else_ns;
        }
        start
    }

    /// Made by the kernel's flush machinery, for several tasks at once.
    #[inline(always)]
    pub fn is_device_flush(&self) -> bool {
        self.req_op() == req_op::FLUSH
    }

    /// What a task's flush looks like: a write of nothing.
    #[inline(always)]
    pub fn is_empty_write(&self) -> bool {
        self.req_op() == req_op::WRITE && self.bytes() == 0
    }

    #[inline(always)]
    fn req_op(&self) -> u32 {
        T::word(self.rq, offset!(rq_flags) as usize) & 0xff
    }

    #[inline(always)]
    fn op(&self) -> u32 {
        match self.req_op() {
            req_op::READ => op::READ,
            req_op::WRITE if self.bytes() == 0 => op::FLUSH,
            req_op::WRITE | req_op::ZONE_APPEND => op::WRITE,
            req_op::FLUSH => op::FLUSH,
            req_op::DISCARD | req_op::SECURE_ERASE | req_op::WRITE_ZEROES => op::DISCARD,
            _ => op::OTHER,
        }
    }

    /// The whole disk, as `dev_t` has it within the kernel.
    #[inline(always)]
    fn device(&self) -> u32 {
        let queue = T::long(self.rq, offset!(rq_queue) as usize) as TaskPtr;
        let disk = T::long(queue, offset!(queue_disk) as usize) as TaskPtr;
        if disk.is_null() {
            return 0;
        }
        let major = T::word(disk, offset!(disk_major) as usize);
        major << 20 | T::word(disk, offset!(disk_minor) as usize)
    }

    /// Number of the VM whose process submits it, else of the VM that has the
    /// cgroup to itself which the kernel accounts it to: the page cache is
    /// written back by kernel threads.
    #[inline(always)]
    fn vm(&self, current: bool) -> u32 {
        if current {
            let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
            let vm = tag::vm(maps::tag_of(tgid));
            if vm != 0 {
                return vm;
            }
        }
        if offset!(has_cgroups) == 0 {
            return 0;
        }
        let bio = T::long(self.rq, offset!(rq_bio) as usize) as TaskPtr;
        let blkg = T::long(bio, offset!(bio_blkg) as usize) as TaskPtr;
        let blkcg = T::long(blkg, offset!(blkg_blkcg) as usize) as TaskPtr;
        let cgroup = T::long(blkcg, offset!(blkcg_cgroup) as usize) as TaskPtr;
        let node = T::long(cgroup, offset!(cgroup_node) as usize) as TaskPtr;
        table::vm_of_cgroup(T::long(node, offset!(node_id) as usize))
    }
}

//! Fields of kernel structures, at offsets that the loader reads from the
//! kernel's BTF: the programs know no kernel version.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use headroom_abi::tag;

/// A `struct task_struct *`, or another structure's.
pub type TaskPtr = *const u8;

/// Declares offsets of fields as globals: frozen before the programs are
/// verified, which therefore take them as constants. [`ABSENT`] is a field
/// that this kernel does not have.
macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: u32 = 0;)+
    };
}

offsets! {
    /// `task_struct.pid`.
    PID_OFFSET;
    /// `task_struct.tgid`.
    TGID_OFFSET;
    /// `task_struct.__state`.
    STATE_OFFSET;
    /// `task_struct.flags`.
    FLAGS_OFFSET;
    /// `task_struct.thread_info.cpu`.
    CPU_OFFSET;
    /// `task_struct.se.cfs_rq`.
    CFS_RQ_OFFSET;
    /// `task_struct.sched_info.run_delay`.
    RUN_DELAY_OFFSET;
    /// `task_struct.sched_info.last_queued`.
    LAST_QUEUED_OFFSET;
    /// `task_struct.sched_task_group`.
    GROUP_OFFSET;
    /// `task_group.cfs_rq`.
    GROUP_CFS_RQ_OFFSET;
    /// `cfs_rq.rq`.
    RQ_OFFSET;
    /// `rq.clock`.
    CLOCK_OFFSET;
    /// `rq.nr_running`.
    NR_RUNNING_OFFSET;
    /// `cfs_rq.throttled_clock_self_time`, before 6.6
    /// `cfs_rq.throttled_clock_pelt_time`.
    THROTTLED_TIME_OFFSET;
    /// `cfs_rq.throttled_clock_self`, before 6.6 `cfs_rq.throttled_clock_pelt`.
    THROTTLED_SINCE_OFFSET;
    /// `rq.clock`, before 6.6 `rq.clock_pelt`: what the two above are in.
    THROTTLED_CLOCK_OFFSET;
    /// `cfs_rq.throttle_count`.
    THROTTLE_COUNT_OFFSET;
}

/// Offset of a field that the kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// `PF_KTHREAD` of include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

macro_rules! offset {
    ($name:ident) => {
        // SAFETY: a global of this object.
        unsafe { core::ptr::read_volatile(&raw const $name) }
    };
}

/// How a program may read a structure of the kernel.
pub trait Task {
    /// A 32-bit field.
    fn word(of: TaskPtr, offset: usize) -> u32;
    /// A 64-bit field or a pointer.
    fn long(of: TaskPtr, offset: usize) -> u64;

    /// Thread id in the initial pid namespace; 0 for the idle tasks.
    #[inline(always)]
    fn pid(task: TaskPtr) -> u32 {
        Self::word(task, offset!(PID_OFFSET) as usize)
    }

    /// Process id in the initial pid namespace.
    #[inline(always)]
    fn tgid(task: TaskPtr) -> u32 {
        Self::word(task, offset!(TGID_OFFSET) as usize)
    }

    /// Scheduler state, 0 for runnable.
    #[inline(always)]
    fn state(task: TaskPtr) -> u32 {
        Self::word(task, offset!(STATE_OFFSET) as usize)
    }

    /// CPU that it runs on or is queued at.
    #[inline(always)]
    fn cpu(task: TaskPtr) -> u32 {
        Self::word(task, offset!(CPU_OFFSET) as usize)
    }

    /// Tag of a task that is no registered thread.
    #[inline(always)]
    fn host_tag(task: TaskPtr, pid: u32) -> u32 {
        if pid == 0 {
            return tag::IDLE;
        }
        if Self::word(task, offset!(FLAGS_OFFSET) as usize) & PF_KTHREAD != 0 {
            return tag::KERNEL;
        }
        tag::HOST
    }

    /// Its run queue within its cgroup, on its CPU.
    #[inline(always)]
    fn cfs_rq(task: TaskPtr) -> TaskPtr {
        Self::long(task, offset!(CFS_RQ_OFFSET) as usize) as TaskPtr
    }

    /// The CPU's run queue above it.
    #[inline(always)]
    fn rq(cfs_rq: TaskPtr) -> TaskPtr {
        Self::long(cfs_rq, offset!(RQ_OFFSET) as usize) as TaskPtr
    }

    /// Tasks running and waiting there.
    #[inline(always)]
    fn nr_running(rq: TaskPtr) -> u32 {
        Self::word(rq, offset!(NR_RUNNING_OFFSET) as usize)
    }

    /// All its waits so far by the scheduler's own count, one that is open
    /// included: `run_delay + (rq.clock - last_queued)`, what
    /// `sched_info_arrive` (kernel/sched/stats.h) makes of it right after
    /// `sched_switch`. Valid under the run queue's lock.
    #[inline(always)]
    fn delay(task: TaskPtr) -> u64 {
        let ended = Self::ended_delay(task);
        let queued = Self::long(task, offset!(LAST_QUEUED_OFFSET) as usize);
        if queued == 0 {
            return ended;
        }
        let rq = Self::rq(Self::cfs_rq(task));
        let clock = Self::long(rq, offset!(CLOCK_OFFSET) as usize);
        if clock > queued {
            ended + (clock - queued)
        } else {
            ended
        }
    }

    /// Its waits that ended, by a switch-in or a move.
    #[inline(always)]
    fn ended_delay(task: TaskPtr) -> u64 {
        Self::long(task, offset!(RUN_DELAY_OFFSET) as usize)
    }

    /// Whether a quota of its cgroup or of one above is used up on its CPU.
    #[inline(always)]
    fn throttled(cfs_rq: TaskPtr) -> bool {
        offset!(THROTTLE_COUNT_OFFSET) != ABSENT
            && Self::word(cfs_rq, offset!(THROTTLE_COUNT_OFFSET) as usize) != 0
    }

    /// Time that its cgroup was throttled on its CPU so far, now included.
    #[inline(always)]
    fn throttled_time(cfs_rq: TaskPtr) -> u64 {
        if offset!(THROTTLED_TIME_OFFSET) == ABSENT {
            return 0;
        }
        let time = Self::long(cfs_rq, offset!(THROTTLED_TIME_OFFSET) as usize);
        if !Self::throttled(cfs_rq) {
            return time;
        }
        let since = Self::long(cfs_rq, offset!(THROTTLED_SINCE_OFFSET) as usize);
        let rq = Self::rq(cfs_rq);
        let clock = Self::long(rq, offset!(THROTTLED_CLOCK_OFFSET) as usize);
        if since != 0 && clock > since {
            time + (clock - since)
        } else {
            time
        }
    }

    /// The same on another CPU, where it is about to go.
    #[inline(always)]
    fn throttled_time_on(task: TaskPtr, cpu: u32) -> u64 {
        let group = Self::long(task, offset!(GROUP_OFFSET) as usize) as TaskPtr;
        let array = Self::long(group, offset!(GROUP_CFS_RQ_OFFSET) as usize) as TaskPtr;
        // An array of pointers is nothing that the verifier can follow.
        let place = array.wrapping_add(cpu as usize * 8).cast::<u64>();
        // SAFETY: the helper fails rather than faults.
        let cfs_rq = unsafe { bpf_probe_read_kernel(place) }.unwrap_or(0) as TaskPtr;
        if cfs_rq.is_null() {
            return 0;
        }
        Probed::throttled_time(cfs_rq)
    }
}

/// `tp_btf`: the verifier knows the argument's type and allows plain loads.
pub struct Direct;

impl Task for Direct {
    #[inline(always)]
    fn word(of: TaskPtr, offset: usize) -> u32 {
        // SAFETY: the verifier proves that the offset lies within the type; a
        // pointer that leads nowhere reads as 0.
        unsafe { core::ptr::read_volatile(of.wrapping_add(offset).cast::<u32>()) }
    }

    #[inline(always)]
    fn long(of: TaskPtr, offset: usize) -> u64 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(of.wrapping_add(offset).cast::<u64>()) }
    }
}

/// Raw tracepoint: arguments are plain numbers, read through a helper.
pub struct Probed;

impl Task for Probed {
    #[inline(always)]
    fn word(of: TaskPtr, offset: usize) -> u32 {
        // SAFETY: the helper fails rather than faults.
        unsafe { bpf_probe_read_kernel(of.wrapping_add(offset).cast::<u32>()) }.unwrap_or(0)
    }

    #[inline(always)]
    fn long(of: TaskPtr, offset: usize) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_probe_read_kernel(of.wrapping_add(offset).cast::<u64>()) }.unwrap_or(0)
    }
}

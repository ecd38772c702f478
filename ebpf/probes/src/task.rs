//! Fields of `task_struct`, at offsets that the loader reads from the kernel's
//! BTF: the programs know no kernel version.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// A `struct task_struct *`.
pub type TaskPtr = *const u8;

/// Offset of `task_struct.pid`; frozen before the programs are verified, which
/// therefore take it as a constant.
#[unsafe(no_mangle)]
static PID_OFFSET: u32 = 0;

/// Offset of `task_struct.__state`, frozen likewise.
#[unsafe(no_mangle)]
static STATE_OFFSET: u32 = 0;

/// How a program may read a task.
pub trait Task {
    /// A 32-bit field.
    fn read(task: TaskPtr, offset: usize) -> u32;

    /// Thread id in the initial pid namespace; 0 for the idle tasks.
    #[inline(always)]
    fn pid(task: TaskPtr) -> u32 {
        // SAFETY: a global of this object.
        Self::read(
            task,
            unsafe { core::ptr::read_volatile(&raw const PID_OFFSET) } as usize,
        )
    }

    /// Scheduler state, 0 for runnable.
    #[inline(always)]
    fn state(task: TaskPtr) -> u32 {
        // SAFETY: a global of this object.
        Self::read(
            task,
            unsafe { core::ptr::read_volatile(&raw const STATE_OFFSET) } as usize,
        )
    }
}

/// `tp_btf`: the verifier knows the argument's type and allows plain loads.
pub struct Direct;

impl Task for Direct {
    #[inline(always)]
    fn read(task: TaskPtr, offset: usize) -> u32 {
        // SAFETY: the verifier proves that the offset lies within the task.
        unsafe { core::ptr::read_volatile(task.wrapping_add(offset).cast::<u32>()) }
    }
}

/// Raw tracepoint: arguments are plain numbers, read through a helper.
pub struct Probed;

impl Task for Probed {
    #[inline(always)]
    fn read(task: TaskPtr, offset: usize) -> u32 {
        // SAFETY: the helper fails rather than faults.
        unsafe { bpf_probe_read_kernel(task.wrapping_add(offset).cast::<u32>()) }.unwrap_or(0)
    }
}

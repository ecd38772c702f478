//! The maps of the scheduler's family, with sizes that the loader replaces,
//! and the look-ups.
//!
//! Arrays only: the verifier inlines their look-ups, they never overflow and
//! never allocate. Those that user space reads are mmap-able.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_RDONLY_PROG},
    macros::map,
    maps::Array,
};
use headroom_abi::blame::CpuLog;
use headroom_abi::sched::{CpuStats, PIDS_PER_ELEMENT, PidSlots, SlotStats, state};

/// pid / 4 → slot numbers. Sized by `kernel.pid_max`: 64 KB for 32 768 pids,
/// 8 MB for the largest 4 194 304.
#[map]
static PID_SLOTS: Array<PidSlots> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// Statistics of the registered threads; slot 0 is never used.
#[map]
static SLOT_STATS: Array<SlotStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Totals of each possible CPU.
#[map]
static CPU_STATS: Array<CpuStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Who had each possible CPU lately.
#[map]
static CPU_LOGS: Array<CpuLog> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// NUMA node of each possible CPU.
#[map]
static CPU_NODES: Array<u32> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// Time that VM `i / BLAME_COLUMNS` waited while VM `i % BLAME_COLUMNS` ran.
#[map]
static BLAME: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// VMs in a row of [`BLAME`]: one more than the highest number.
#[unsafe(no_mangle)]
static BLAME_COLUMNS: u32 = 1;

/// Slot of a pid, 0 for an unregistered one.
#[inline(always)]
pub fn slot_of(pid: u32) -> u32 {
    let Some(element) = PID_SLOTS.get_ptr(pid / PIDS_PER_ELEMENT) else {
        return 0;
    };
    let number = element
        .cast::<u16>()
        .wrapping_add((pid % PIDS_PER_ELEMENT) as usize);
    // SAFETY: one of the four numbers of an element. Volatile, for user space
    // changes it at any time and it must be read once.
    u32::from(unsafe { core::ptr::read_volatile(number) })
}

/// Statistics of a slot.
#[inline(always)]
pub fn slot(number: u32) -> Option<*mut SlotStats> {
    SLOT_STATS.get_ptr_mut(number)
}

/// Whose thread a pid is, see [`headroom_abi::tag`]; 0 for an unregistered
/// one. Of a process, ask for its thread group: the main thread of a VMM is
/// registered, its workers may not be yet.
#[inline(always)]
pub fn tag_of(pid: u32) -> u32 {
    let number = slot_of(pid);
    if number == 0 {
        return 0;
    }
    match slot(number) {
        // SAFETY: an element of a map.
        Some(s) if unsafe { core::ptr::read_volatile(&raw const (*s).state) } != state::EXITED => {
            // SAFETY: as above.
            unsafe { core::ptr::read_volatile(&raw const (*s).tag) }
        }
        _ => 0,
    }
}

/// Totals of a CPU.
#[inline(always)]
pub fn cpu(number: u32) -> Option<*mut CpuStats> {
    CPU_STATS.get_ptr_mut(number)
}

/// Log of a CPU.
#[inline(always)]
pub fn log(number: u32) -> Option<*mut CpuLog> {
    CPU_LOGS.get_ptr_mut(number)
}

/// Time that `victim` waited while `culprit` ran; both are VM numbers.
#[inline(always)]
pub fn blame(victim: u32, culprit: u32) -> Option<*mut u64> {
    // SAFETY: a global of this object, frozen by the loader.
    let columns = unsafe { core::ptr::read_volatile(&raw const BLAME_COLUMNS) };
    BLAME.get_ptr_mut(victim * columns + culprit)
}

/// Whether two CPUs are of different NUMA nodes; false for one beyond the
/// table.
#[inline(always)]
pub fn nodes_differ(a: u32, b: u32) -> bool {
    match (CPU_NODES.get(a), CPU_NODES.get(b)) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    }
}

//! How many vCPUs want to run at once: snapshots by a timer of one CPU.
//!
//! The timer's interrupt comes whoever runs there, and on an idle CPU too,
//! where a thread in user space would come only when the guests let it.

use core::ffi::c_void;
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::PerfEventContext;
use headroom_abi::snapshot::{
    AT_NS, COVERED, HEAD, HEADER, SEQ, SLOTS, SLOTS_PER_WORD, activity, of_thread, start,
};
use headroom_abi::tag;

use crate::cell::get;
use crate::{maps, now};

/// Layout in [`headroom_abi::snapshot`]; the loader sets its size.
#[map]
static SNAPSHOTS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Words of a snapshot, frozen by the loader.
#[unsafe(no_mangle)]
static SNAPSHOT_STRIDE: u32 = 0;

/// The perf event `cpu-clock` of one CPU: one writer, which no other run of
/// this program interrupts.
#[perf_event]
pub fn cpu_clock(_: PerfEventContext) -> u32 {
    let _ = snapshot();
    0
}

#[inline(always)]
fn snapshot() -> Option<()> {
    // SAFETY: a global of this object.
    let stride = unsafe { read_volatile(&raw const SNAPSHOT_STRIDE) };
    let number = read(HEAD)?;
    let slots = read(COVERED)? as u32;
    let start = start(number, stride);
    write(start + SEQ, 0)?;
    write(start + AT_NS, now())?;
    write(start + SLOTS, u64::from(slots))?;
    let mut walk = Walk {
        bits: 0,
        next: start + HEADER,
        slots,
    };
    // As in `owner`: the callback is verified once.
    // SAFETY: the callback takes what is passed here.
    unsafe {
        bpf_loop(slots, look as *mut c_void, (&raw mut walk).cast(), 0);
    }
    write(start + SEQ, number + 1)?;
    write(HEAD, number + 1)
}

struct Walk {
    /// What is gathered of the word in the making.
    bits: u64,
    /// Its place in the map.
    next: u32,
    slots: u32,
}

/// Looks at one slot; 1 ends the walk.
extern "C" fn look(number: u32, walk: *mut c_void) -> i64 {
    // SAFETY: what `snapshot` passed, on its stack.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let Some(s) = maps::slot(number) else {
        return 1;
    };
    let activity = if tag::role(get!(s.tag)) == tag::role::VCPU {
        of_thread(get!(s.state), get!(s.since_ns), get!(s.woken_ns))
    } else {
        activity::NONE
    };
    let place = number % SLOTS_PER_WORD;
    walk.bits |= activity << (2 * place);
    if place == SLOTS_PER_WORD - 1 || number + 1 == walk.slots {
        if write(walk.next, walk.bits).is_none() {
            return 1;
        }
        walk.bits = 0;
        walk.next += 1;
    }
    0
}

#[inline(always)]
fn read(word: u32) -> Option<u64> {
    let word = SNAPSHOTS.get_ptr(word)?;
    // SAFETY: an element of a map.
    Some(unsafe { read_volatile(word) })
}

#[inline(always)]
fn write(word: u32, value: u64) -> Option<()> {
    let word = SNAPSHOTS.get_ptr_mut(word)?;
    // SAFETY: an element of a map. Volatile: user space reads at the same time
    // and relies on the order.
    unsafe { write_volatile(word, value) };
    Some(())
}

//! The state machine of one registered thread.
//!
//! All three hooks run under the run-queue lock of the thread's CPU, so a slot
//! has one writer at a time; the sequence lock is for the reader in user space
//! alone. Every access is volatile: the compiler keeps their order, and so do
//! the stores of x86-64.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::EbpfContext;
use headroom_abi::{
    hist::{self, BUCKETS},
    sched::{SlotStats, state},
};

use crate::maps;

macro_rules! get {
    ($s:ident . $field:ident) => {
        // SAFETY: `$s` is an element of a map, checked by the verifier.
        unsafe { read_volatile(&raw const (*$s).$field) }
    };
}

macro_rules! set {
    ($s:ident . $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as for `get!`.
        unsafe { write_volatile(&raw mut (*$s).$field, value) }
    }};
}

macro_rules! add {
    ($s:ident . $field:ident += $value:expr) => {
        set!($s.$field = get!($s.$field) + $value)
    };
}

/// Whether a wake-up changes anything: not for a thread that runs or is
/// runnable already.
#[inline(always)]
pub fn wants_wakeup(s: *mut SlotStats) -> bool {
    matches!(get!(s.state), state::SLEEPING | state::UNKNOWN)
}

/// A sleeping thread became runnable; after [`wants_wakeup`].
#[inline(always)]
pub fn wakeup<C: EbpfContext>(ctx: &C, s: *mut SlotStats, now: u64) {
    let seq = begin(s);
    elapse(ctx, s, now);
    set!(s.state = state::READY_WAKE);
    end(s, seq);
}

/// A thread left its CPU for the state `after`.
#[inline(always)]
pub fn switch_out<C: EbpfContext>(ctx: &C, s: *mut SlotStats, now: u64, after: u32) {
    let before = get!(s.state);
    if before == state::EXITED {
        return;
    }
    let seq = begin(s);
    let elapsed = elapse(ctx, s, now);
    // It was on the CPU whatever we believed; a sleeper that was never seen to
    // come back has an unknown part of this, which is dropped.
    if before != state::SLEEPING {
        add!(s.run_ns += elapsed);
    }
    set!(s.state = after);
    end(s, seq);
}

/// A thread took CPU number `cpu`.
#[inline(always)]
pub fn switch_in<C: EbpfContext>(ctx: &C, s: *mut SlotStats, now: u64, cpu: u32) {
    let before = get!(s.state);
    if before == state::EXITED {
        return;
    }
    let seq = begin(s);
    let wait = elapse(ctx, s, now);
    match before {
        state::READY_WAKE => {
            add!(s.ready_wake_ns += wait);
            // SAFETY: an element of a map.
            count(unsafe { &raw mut (*s).hist_wake }, wait);
            longest(s, wait);
        }
        state::READY_PREEMPT => {
            add!(s.ready_preempt_ns += wait);
            // SAFETY: an element of a map.
            count(unsafe { &raw mut (*s).hist_preempt }, wait);
            longest(s, wait);
        }
        // Runnable since before its registration: the time counts, but it is
        // not the length of a wait.
        state::UNKNOWN => add!(s.ready_preempt_ns += wait),
        other => unexpected(ctx, other),
    }
    set!(s.state = state::RUNNING);
    add!(s.switches += 1);
    let last = get!(s.cpu);
    if last != cpu {
        set!(s.cpu = cpu);
        moved(s, last, cpu);
    }
    end(s, seq);
}

#[inline(always)]
fn moved(s: *mut SlotStats, last: u32, cpu: u32) {
    if last == u32::MAX {
        return;
    }
    add!(s.cpu_migrations += 1);
    if maps::nodes_differ(last, cpu) {
        add!(s.node_migrations += 1);
    }
}

/// Time since the state began; starts the next state now. A clock that went
/// back (CPUs differ) gives 0 and keeps the later time, so that no ns counts
/// twice.
#[inline(always)]
fn elapse<C: EbpfContext>(ctx: &C, s: *mut SlotStats, now: u64) -> u64 {
    let since = get!(s.since_ns);
    if now < since {
        add!(s.clock_skews += 1);
        skewed(ctx, since - now);
        return 0;
    }
    set!(s.since_ns = now);
    now - since
}

#[cfg(feature = "log")]
#[inline(always)]
fn skewed<C: EbpfContext>(ctx: &C, ns: u64) {
    aya_log_ebpf::warn!(ctx, "event before the last one, by {} ns", ns);
}

#[cfg(not(feature = "log"))]
#[inline(always)]
fn skewed<C: EbpfContext>(_: &C, _: u64) {}

#[cfg(feature = "log")]
#[inline(always)]
fn unexpected<C: EbpfContext>(ctx: &C, state: u32) {
    aya_log_ebpf::warn!(ctx, "switched in while in state {}, no wait seen", state);
}

#[cfg(not(feature = "log"))]
#[inline(always)]
fn unexpected<C: EbpfContext>(_: &C, _: u32) {}

#[inline(always)]
fn count(hist: *mut [u64; BUCKETS], ns: u64) {
    let bucket = hist::index(ns);
    if bucket < BUCKETS {
        let counter = hist.cast::<u64>().wrapping_add(bucket);
        // SAFETY: in bounds by the line above.
        unsafe { write_volatile(counter, read_volatile(counter) + 1) };
    }
}

#[inline(always)]
fn longest(s: *mut SlotStats, wait: u64) {
    if wait > get!(s.ready_max_ns) {
        set!(s.ready_max_ns = wait);
    }
}

#[inline(always)]
fn begin(s: *mut SlotStats) -> u64 {
    let seq = get!(s.seq) + 1;
    set!(s.seq = seq);
    seq
}

#[inline(always)]
fn end(s: *mut SlotStats, seq: u64) {
    set!(s.seq = seq + 1);
}

//! Family `numa`: what the NUMA balancer does with registered threads.

use crate::cell::atomic;
use crate::hook::hook;
use crate::maps;
use crate::task::{Task, TaskPtr};

hook! {
    /// A thread is moved to the node of its memory.
    "sched_move_numa", sched_move_numa, raw_sched_move_numa,
    |ctx, T| moved::<T>(ctx.arg(0))
}

hook! {
    /// Two threads of two nodes change places.
    "sched_swap_numa", sched_swap_numa, raw_sched_swap_numa,
    |ctx, T| {
        swapped::<T>(ctx.arg(0));
        // It may be NULL: the verifier of Debian's 6.12 (6.12.117) refuses the
        // program without this check, that of 6.1 does not care.
        let other: TaskPtr = ctx.arg(2);
        if !other.is_null() {
            swapped::<T>(other);
        }
    }
}

#[inline(always)]
fn moved<T: Task>(task: TaskPtr) {
    if let Some(stats) = maps::slot(maps::slot_of(T::pid(task))) {
        // SAFETY: an element of a map.
        atomic(unsafe { &raw mut (*stats).numa_moves }, 1);
    }
}

#[inline(always)]
fn swapped<T: Task>(task: TaskPtr) {
    if let Some(stats) = maps::slot(maps::slot_of(T::pid(task))) {
        // SAFETY: an element of a map.
        atomic(unsafe { &raw mut (*stats).numa_swaps }, 1);
    }
}

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
        swapped::<T>(ctx.arg(2));
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

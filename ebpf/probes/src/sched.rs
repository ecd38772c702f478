//! Family `sched`: waits, states and owners of the CPUs.

use aya_ebpf::{
    EbpfContext, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use headroom_abi::sched::state;

use crate::cell::{add, get};
use crate::hook::hook;
use crate::task::{Task, TaskPtr};
use crate::{maps, now, owner, slot, this_cpu, virtio};

hook! {
    /// Somebody wakes a thread. Earlier than `sched_wakeup`, which on another
    /// CPU comes by an interrupt: how long the thread was queued, the
    /// scheduler's own books tell when it is switched in.
    "sched_waking", sched_waking, raw_sched_waking,
    |ctx, T| on_waking::<T>(ctx.arg(0))
}

hook! {
    /// One thread leaves a CPU and another takes it.
    "sched_switch", sched_switch, raw_sched_switch,
    |ctx, T| {
        let switch = Switch {
            preempt: ctx.arg::<u64>(0) & 1 != 0,
            prev: ctx.arg(1),
            next: ctx.arg(2),
            prev_state: ctx.arg(3),
        };
        on_switch::<T, _>(&ctx, &switch)
    }
}

hook! {
    /// A thread goes to another CPU's queue, by a wake-up or while it waits.
    "sched_migrate_task", sched_migrate_task, raw_sched_migrate_task,
    |ctx, T| on_migrate::<T>(ctx.arg(0), ctx.arg(1))
}

/// Does nothing: what the kernel takes for calling any program here, the floor
/// that `headroom bench probes` compares with.
#[btf_tracepoint(function = "sched_waking")]
pub fn empty_sched_waking(_: BtfTracePointContext) -> i32 {
    0
}

/// As [`empty_sched_waking`].
#[btf_tracepoint(function = "sched_switch")]
pub fn empty_sched_switch(_: BtfTracePointContext) -> i32 {
    0
}

/// The arguments of `sched_switch` since kernel 5.18.
struct Switch {
    preempt: bool,
    prev: TaskPtr,
    next: TaskPtr,
    prev_state: u32,
}

/// `TASK_DEAD` of the kernel, the same value since 4.14.
const TASK_DEAD: u32 = 0x80;

#[inline(always)]
fn on_waking<T: Task>(woken: TaskPtr) {
    if let Some(cpu) = maps::cpu(this_cpu()) {
        add!(cpu.wakeups += 1);
    }
    let number = maps::slot_of(T::pid(woken));
    if number == 0 {
        return;
    }
    if let Some(stats) = maps::slot(number) {
        let now = now();
        slot::woken::<T>(stats, woken, now);
        virtio::waking(number, now);
    }
}

#[inline(always)]
fn on_switch<T: Task, C: EbpfContext>(ctx: &C, switch: &Switch) {
    let (prev, next) = (T::pid(switch.prev), T::pid(switch.next));
    let this_cpu = this_cpu();
    let Some(cpu) = maps::cpu(this_cpu) else {
        return;
    };
    add!(cpu.switches += 1);
    // pid 0, the idle task, never has a slot.
    let (out, into) = (maps::slot_of(prev), maps::slot_of(next));
    let mut tag = 0;
    if into == 0 {
        tag = T::host_tag(switch.next, next);
        // The clock is the dearest part (20 of 65 ns): tasks of the host that
        // follow one another do not read it.
        if out == 0 && tag == get!(cpu.tag) {
            return;
        }
    }
    let now = now();
    if out != 0
        && let Some(stats) = maps::slot(out)
    {
        slot::switch_out::<T, C>(ctx, stats, switch.prev, now, after::<T>(switch));
    }
    if into != 0
        && let Some(stats) = maps::slot(into)
    {
        virtio::switched_in(into, get!(stats.state), now);
        tag = slot::switch_in::<T, C>(ctx, stats, switch.next, (cpu, this_cpu), now);
    }
    if tag == 0 {
        tag = T::host_tag(switch.next, next);
    }
    owner::change(cpu, this_cpu, tag, next, now);
}

/// State of the thread that leaves the CPU.
#[inline(always)]
fn after<T: Task>(switch: &Switch) -> u32 {
    if switch.preempt || switch.prev_state == 0 {
        return state::READY;
    }
    if switch.prev_state & TASK_DEAD != 0 {
        return state::EXITED;
    }
    // In older kernels the argument still says "sleeping" where a pending signal
    // has just put the task back to runnable; the field itself is right.
    if T::state(switch.prev) == 0 {
        return state::READY;
    }
    state::SLEEPING
}

#[inline(always)]
fn on_migrate<T: Task>(task: TaskPtr, to: u32) {
    let number = maps::slot_of(T::pid(task));
    if number == 0 {
        return;
    }
    if let Some(stats) = maps::slot(number) {
        slot::migrate::<T>(stats, task, to, now());
    }
}

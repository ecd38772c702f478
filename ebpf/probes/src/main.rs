//! The BPF programs of headroom: who waits for a CPU, how long, and why.
//!
//! Three hooks, each as `tp_btf` and, for kernels that refuse it, as a raw
//! tracepoint with the same logic. Only one of the two is ever loaded.
#![no_std]
#![no_main]
// For one instruction, see `net::atomic`.
#![feature(asm_experimental_arch)]

mod header;
mod maps;
mod net;
mod slot;
mod task;

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use headroom_abi::sched::{CpuStats, state};

use crate::task::{Direct, Probed, Task, TaskPtr};

/// A woken thread joins a run queue.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    on_wakeup::<Direct, _>(&ctx, ctx.arg(0))
}

/// A new thread joins a run queue for the first time.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    on_wakeup::<Direct, _>(&ctx, ctx.arg(0))
}

/// One thread leaves a CPU and another takes it.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let switch = Switch {
        preempt: ctx.arg::<u64>(0) & 1 != 0,
        prev: ctx.arg(1),
        next: ctx.arg(2),
        prev_state: ctx.arg(3),
    };
    on_switch::<Direct, _>(&ctx, &switch)
}

/// Does nothing: what the kernel takes for calling any program here, the floor
/// that `headroom bench probes` compares with.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn empty_sched_wakeup(_: BtfTracePointContext) -> i32 {
    0
}

/// As [`empty_sched_wakeup`].
#[btf_tracepoint(function = "sched_switch")]
pub fn empty_sched_switch(_: BtfTracePointContext) -> i32 {
    0
}

/// [`sched_wakeup`] as a raw tracepoint.
#[raw_tracepoint(tracepoint = "sched_wakeup")]
pub fn raw_sched_wakeup(ctx: RawTracePointContext) -> i32 {
    on_wakeup::<Probed, _>(&ctx, ctx.arg(0))
}

/// [`sched_wakeup_new`] as a raw tracepoint.
#[raw_tracepoint(tracepoint = "sched_wakeup_new")]
pub fn raw_sched_wakeup_new(ctx: RawTracePointContext) -> i32 {
    on_wakeup::<Probed, _>(&ctx, ctx.arg(0))
}

/// [`sched_switch`] as a raw tracepoint.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn raw_sched_switch(ctx: RawTracePointContext) -> i32 {
    let switch = Switch {
        preempt: ctx.arg::<u64>(0) & 1 != 0,
        prev: ctx.arg(1),
        next: ctx.arg(2),
        prev_state: ctx.arg(3),
    };
    on_switch::<Probed, _>(&ctx, &switch)
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
fn on_wakeup<T: Task, C: EbpfContext>(ctx: &C, woken: TaskPtr) -> i32 {
    if let Some(cpu) = maps::cpu(this_cpu()) {
        // SAFETY: an element of a map, this CPU's own, preemption off.
        unsafe { (*cpu).wakeups += 1 };
    }
    let number = maps::slot_of(T::pid(woken));
    if number == 0 {
        return 0;
    }
    if let Some(stats) = maps::slot(number)
        && slot::wants_wakeup(stats)
    {
        slot::wakeup(ctx, stats, now());
    }
    0
}

#[inline(always)]
fn on_switch<T: Task, C: EbpfContext>(ctx: &C, switch: &Switch) -> i32 {
    let (prev, next) = (T::pid(switch.prev), T::pid(switch.next));
    let this_cpu = this_cpu();
    let Some(cpu) = maps::cpu(this_cpu) else {
        return 0;
    };
    // SAFETY: an element of a map, this CPU's own, preemption off.
    unsafe { (*cpu).switches += 1 };
    // pid 0, the idle task, never has a slot.
    let (out, into) = (maps::slot_of(prev), maps::slot_of(next));
    // The clock is the dearest part (20 of 65 ns): an unregistered pair without
    // an idle edge does not read it.
    if out | into == 0 && prev != 0 && next != 0 {
        return 0;
    }
    let now = now();
    idle_edge(cpu, prev, next, now);
    if out != 0
        && let Some(stats) = maps::slot(out)
    {
        slot::switch_out(ctx, stats, now, after::<T>(switch));
    }
    if into != 0
        && let Some(stats) = maps::slot(into)
    {
        slot::switch_in(ctx, stats, now, this_cpu);
    }
    0
}

/// State of the thread that leaves the CPU.
#[inline(always)]
fn after<T: Task>(switch: &Switch) -> u32 {
    if switch.preempt || switch.prev_state == 0 {
        return state::READY_PREEMPT;
    }
    if switch.prev_state & TASK_DEAD != 0 {
        return state::EXITED;
    }
    // In older kernels the argument still says "sleeping" where a pending signal
    // has just put the task back to runnable; the field itself is right.
    if T::state(switch.prev) == 0 {
        return state::READY_PREEMPT;
    }
    state::SLEEPING
}

#[inline(always)]
fn idle_edge(cpu: *mut CpuStats, prev: u32, next: u32, now: u64) {
    if prev != 0 && next != 0 {
        return;
    }
    // SAFETY: an element of a map, this CPU's own, preemption off. Volatile,
    // for the reader relies on the order.
    unsafe {
        let seq = read_volatile(&raw const (*cpu).seq);
        write_volatile(&raw mut (*cpu).seq, seq + 1);
        let mut since = 0;
        if next == 0 {
            since = now;
        } else {
            let from = read_volatile(&raw const (*cpu).idle_since_ns);
            if from != 0 && now > from {
                let idle = read_volatile(&raw const (*cpu).idle_ns);
                write_volatile(&raw mut (*cpu).idle_ns, idle + (now - from));
            }
        }
        write_volatile(&raw mut (*cpu).idle_since_ns, since);
        write_volatile(&raw mut (*cpu).seq, seq + 2);
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn this_cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier would refuse the loop.
    loop {}
}

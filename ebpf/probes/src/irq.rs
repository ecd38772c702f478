//! Family `irq`: time that interrupts take from whoever has a CPU, and the
//! run queue's depth at each tick.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_current_task_btf};

use crate::hook::hook;
use crate::task::{Task, TaskPtr};
use crate::{maps, now, owner, slot, this_cpu};

hook! {
    /// A device's handler begins.
    "irq_handler_entry", irq_handler_entry, raw_irq_handler_entry,
    |_ctx, _T| enter()
}

hook! {
    /// A device's handler ends.
    "irq_handler_exit", irq_handler_exit, raw_irq_handler_exit,
    |_ctx, _T| exit()
}

hook! {
    /// A soft interrupt begins, also in its thread.
    "softirq_entry", softirq_entry, raw_softirq_entry,
    |_ctx, _T| enter()
}

hook! {
    /// A soft interrupt ends.
    "softirq_exit", softirq_exit, raw_softirq_exit,
    |_ctx, _T| exit()
}

hook! {
    /// The local timer: the tick, on a busy CPU.
    "local_timer_entry", local_timer_entry, raw_local_timer_entry,
    |ctx, T| {
        enter();
        // SAFETY: a helper without arguments.
        tick::<T, _>(&ctx, unsafe { bpf_get_current_task_btf() } as TaskPtr);
    }
}

hook! {
    /// Its end.
    "local_timer_exit", local_timer_exit, raw_local_timer_exit,
    |_ctx, _T| exit()
}

#[inline(always)]
fn enter() {
    if let Some(cpu) = maps::cpu(this_cpu()) {
        owner::irq_enter(cpu, now());
    }
}

#[inline(always)]
fn exit() {
    if let Some(cpu) = maps::cpu(this_cpu()) {
        owner::irq_exit(cpu, now());
    }
}

#[inline(always)]
fn tick<T: Task, C: EbpfContext>(ctx: &C, current: TaskPtr) {
    let number = this_cpu();
    let Some(cpu) = maps::cpu(number) else {
        return;
    };
    let now = now();
    let rq = T::rq(T::cfs_rq(current));
    owner::depth(cpu, T::nr_running(rq), now);
    // A thread that was registered while it ran may not be switched for
    // minutes: this is where its CPU learns whose it is. So it does of one
    // whose switch no program saw: some kernels leave out about 4 a second.
    let pid = T::pid(current);
    let slot = maps::slot_of(pid);
    let mut tag = 0;
    if slot != 0
        && let Some(stats) = maps::slot(slot)
    {
        tag = slot::seen_running::<T, C>(ctx, stats, current, (cpu, number), now);
    }
    if tag == 0 {
        tag = T::host_tag(current, pid);
    }
    owner::change(cpu, number, tag, pid, now);
}

//! The state machine of one registered thread.
//!
//! Switches and moves run under the run-queue lock of the thread's CPU, so a
//! slot has one writer at a time; the sequence lock is for the reader in user
//! space alone. A waking runs under the thread's own lock instead and writes
//! two words that nothing else writes while the thread sleeps.

use aya_ebpf::EbpfContext;
use headroom_abi::{
    hist,
    sched::{CpuStats, SlotStats, state},
};

use crate::cell::{add, begin, bump, end, get, set};
use crate::maps;
use crate::owner;
use crate::task::{Task, TaskPtr};

/// A sleeping thread is being woken; nothing for one that runs or is runnable.
#[inline(always)]
pub fn woken<T: Task>(s: *mut SlotStats, task: TaskPtr, now: u64) {
    if matches!(get!(s.state), state::SLEEPING | state::UNKNOWN) {
        set!(s.throttle_base_ns = T::throttled_time(T::cfs_rq(task)));
        set!(s.woken_ns = now);
    }
}

/// A thread left its CPU for the state `after`.
#[inline(always)]
pub fn switch_out<T: Task, C: EbpfContext>(
    ctx: &C,
    s: *mut SlotStats,
    task: TaskPtr,
    now: u64,
    after: u32,
) {
    let before = get!(s.state);
    if before == state::EXITED {
        return;
    }
    let seq = begin!(s);
    let elapsed = elapse(ctx, s, now);
    // It was on the CPU whatever we believed; a sleeper that was never seen to
    // come back has an unknown part of this, which is dropped.
    if before != state::SLEEPING {
        add!(s.run_ns += elapsed);
    }
    let mut after = after;
    if after == state::READY {
        let cfs_rq = T::cfs_rq(task);
        set!(s.throttle_base_ns = T::throttled_time(cfs_rq));
        if T::throttled(cfs_rq) {
            after = state::THROTTLED;
        }
    }
    set!(s.state = after);
    end!(s, seq);
}

/// A thread took CPU number `number`. Gives its tag, 0 when the slot belongs to
/// a thread that is gone.
#[inline(always)]
pub fn switch_in<T: Task, C: EbpfContext>(
    ctx: &C,
    s: *mut SlotStats,
    task: TaskPtr,
    cpu: (*mut CpuStats, u32),
    now: u64,
) -> u32 {
    let before = get!(s.state);
    if before == state::EXITED {
        return 0;
    }
    let (cpu, number) = cpu;
    let seq = begin!(s);
    let elapsed = elapse(ctx, s, now);
    let delay = T::delay(task);
    let seen = get!(s.delay_seen_ns);
    set!(s.delay_seen_ns = delay);
    // What is new since the last look: the whole wait, or what is left of one
    // that a move cut. The scheduler's clock may differ from ours by some ns.
    let rest = if delay > seen { delay - seen } else { 0 };
    let moved = get!(s.moved_wait_ns);
    let wait = least(rest + moved, elapsed);
    let rest = least(rest, wait);
    let throttled = throttled::<T>(s, task, rest);
    let (wait, rest) = (wait - throttled, rest - throttled);
    if rest > 0 {
        // A quota ends before the thread may run again: the wait proper is the
        // later part.
        owner::charge(s, cpu, number, now - rest, now);
    }
    // One that slept from its registration until its first wake-up.
    let slept = before == state::UNKNOWN && get!(s.woken_ns) > now.wrapping_sub(elapsed);
    finish(s, if slept { state::SLEEPING } else { before }, wait);
    if moved != 0 {
        set!(s.moved_wait_ns = 0);
    }
    set!(s.state = state::RUNNING);
    add!(s.switches += 1);
    let last = get!(s.cpu);
    if last != number {
        set!(s.cpu = number);
        set!(s.wait_cpu = number);
        came(s, last, number);
    }
    end!(s, seq);
    get!(s.tag)
}

/// A thread is on this CPU at a tick. Gives its tag, 0 when the slot belongs to
/// one that is gone. Without an event since its registration it has run all
/// the time since; one in another state came without an event, and comes now.
/// Nobody else writes: its next event is on this CPU, too.
#[inline(always)]
pub fn seen_running<T: Task, C: EbpfContext>(
    ctx: &C,
    s: *mut SlotStats,
    task: TaskPtr,
    cpu: (*mut CpuStats, u32),
    now: u64,
) -> u32 {
    match get!(s.state) {
        state::RUNNING => {}
        state::EXITED => return 0,
        state::UNKNOWN => {
            let seq = begin!(s);
            set!(s.state = state::RUNNING);
            end!(s, seq);
        }
        before => {
            let (record, _) = cpu;
            add!(record.missed += 1);
            let (since, waited) = (get!(s.since_ns), waited(s));
            let tag = switch_in::<T, C>(ctx, s, task, cpu, now);
            // What was no wait of one that did not sleep, it ran: the
            // scheduler's books have the wait.
            let elapsed = get!(s.since_ns).wrapping_sub(since);
            let wait = self::waited(s).wrapping_sub(waited);
            if before != state::SLEEPING && wait < elapsed {
                let seq = begin!(s);
                add!(s.run_ns += elapsed - wait);
                end!(s, seq);
            }
            return tag;
        }
    }
    get!(s.tag)
}

/// Time not run of a thread that does not sleep.
#[inline(always)]
fn waited(s: *mut SlotStats) -> u64 {
    get!(s.ready_preempt_ns) + get!(s.throttled_ns)
}

/// A thread goes to another CPU's queue: the part of its wait at the old one
/// is charged to those who ran there.
#[inline(always)]
pub fn migrate<T: Task>(s: *mut SlotStats, task: TaskPtr, to: u32, now: u64) {
    if get!(s.state) == state::EXITED {
        return;
    }
    // It has left the old queue: that ended its wait there in the scheduler's
    // books. Nothing new means that it is being placed by a wake-up.
    let (delay, seen) = (T::ended_delay(task), get!(s.delay_seen_ns));
    let from = T::cpu(task);
    let seq = begin!(s);
    if delay > seen {
        let part = least(delay - seen, now.wrapping_sub(get!(s.since_ns)));
        set!(s.delay_seen_ns = delay);
        let throttled = throttled::<T>(s, task, part);
        let part = part - throttled;
        add!(s.moved_wait_ns += part);
        if let Some(cpu) = maps::cpu(from) {
            owner::charge(s, cpu, from, now - part, now);
        }
    }
    set!(s.wait_cpu = to);
    set!(s.throttle_base_ns = T::throttled_time_on(task, to));
    end!(s, seq);
}

/// The part of a wait that a quota took, booked as such.
#[inline(always)]
fn throttled<T: Task>(s: *mut SlotStats, task: TaskPtr, wait: u64) -> u64 {
    let (time, base) = (T::throttled_time(T::cfs_rq(task)), get!(s.throttle_base_ns));
    set!(s.throttle_base_ns = time);
    if time <= base {
        return 0;
    }
    let part = least(time - base, wait);
    add!(s.throttled_ns += part);
    add!(s.throttles += 1);
    part
}

/// Books the length of a wait that ends by a switch-in from the state `before`.
#[inline(always)]
fn finish(s: *mut SlotStats, before: u32, wait: u64) {
    match before {
        state::SLEEPING => {
            add!(s.ready_wake_ns += wait);
            // SAFETY: an element of a map.
            bump(unsafe { &raw mut (*s).hist_wake }, hist::index(wait), 1);
        }
        state::UNKNOWN => {
            // Runnable since before its registration: the time counts, but it
            // is not the length of a wait.
            add!(s.ready_preempt_ns += wait);
            return;
        }
        _ => {
            add!(s.ready_preempt_ns += wait);
            // SAFETY: an element of a map.
            bump(unsafe { &raw mut (*s).hist_preempt }, hist::index(wait), 1);
        }
    }
    if wait > get!(s.ready_max_ns) {
        set!(s.ready_max_ns = wait);
    }
}

#[inline(always)]
fn came(s: *mut SlotStats, last: u32, cpu: u32) {
    if last == u32::MAX {
        return;
    }
    add!(s.cpu_migrations += 1);
    if maps::nodes_differ(last, cpu) {
        add!(s.node_migrations += 1);
    }
}

#[inline(always)]
fn least(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
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

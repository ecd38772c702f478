//! Who has each CPU: segments of one owner, and whom to blame for a wait.
//!
//! Switches happen under the run queue's lock of their CPU, so each CPU's
//! record has one writer. A wait is blamed by its own CPU's next switch, or,
//! when it is moved away, under the lock of the queue it leaves.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use headroom_abi::blame::{self, CpuLog, LOG_LEN, MAX_STEPS, Segment, kind};
use headroom_abi::sched::{CpuStats, SlotStats};
use headroom_abi::tag;

use crate::cell::{add, atomic, begin, bump, end, get, set};
use crate::maps;

/// The owner of a CPU changes to `next`, a thread of number `pid`.
#[inline(always)]
pub fn change(cpu: *mut CpuStats, number: u32, next: u32, pid: u32, now: u64) {
    let before = get!(cpu.tag);
    if before == next {
        return;
    }
    let (since, base, irq) = (get!(cpu.since_ns), get!(cpu.irq_base_ns), get!(cpu.irq_ns));
    let head = get!(cpu.head);
    let seq = begin!(cpu);
    if since != 0 && now > since {
        let (length, irq) = (now - since, irq - base);
        let own = if irq < length { length - irq } else { 0 };
        // SAFETY: an element of a map.
        bump(
            unsafe { &raw mut (*cpu).role_ns },
            tag::role(before) as usize,
            own,
        );
    }
    if let Some(log) = maps::log(number) {
        let place = log
            .cast::<Segment>()
            .wrapping_add(head as usize & (LOG_LEN - 1));
        set!(place.start_ns = since);
        set!(place.irq_ns = base);
        set!(place.tag = before);
        set!(place.pid = get!(cpu.pid));
    }
    set!(cpu.head = head + 1);
    set!(cpu.tag = next);
    set!(cpu.pid = pid);
    set!(cpu.since_ns = now);
    set!(cpu.irq_base_ns = irq);
    if before == tag::IDLE {
        set!(cpu.depth_at_ns = now);
    }
    end!(cpu, seq);
}

/// Charges the wait of a thread from `from` to `now` on a CPU to those who
/// had it.
#[inline(always)]
pub fn charge(s: *mut SlotStats, cpu: *mut CpuStats, number: u32, from: u64, now: u64) {
    let irq_now = get!(cpu.irq_ns);
    let segment = Segment {
        start_ns: get!(cpu.since_ns),
        irq_ns: get!(cpu.irq_base_ns),
        tag: get!(cpu.tag),
        pid: get!(cpu.pid),
    };
    if from >= segment.start_ns && segment.start_ns != 0 {
        // Mostly: whoever runs now has run all the time.
        let irq = blame::interrupts(irq_now - segment.irq_ns, now - from, now - segment.start_ns);
        return book(s, &segment, now - from, irq);
    }
    walk(s, cpu, number, from, now);
}

/// A walk over a CPU's log.
#[repr(C)]
struct Walk {
    slot: *mut SlotStats,
    log: *mut CpuLog,
    /// The segment looked at.
    segment: Segment,
    /// Place of the next older one, counted without end.
    next: u64,
    /// The wait's beginning.
    from: u64,
    /// The time up to which it is still to be booked.
    end: u64,
    /// The CPU's interrupt time at `end`'s segment's end.
    irq_end: u64,
}

/// As [`charge`], over the log.
#[inline(always)]
fn walk(s: *mut SlotStats, cpu: *mut CpuStats, number: u32, from: u64, now: u64) {
    let Some(log) = maps::log(number) else {
        return;
    };
    let mut walk = Walk {
        slot: s,
        log,
        segment: Segment {
            start_ns: get!(cpu.since_ns),
            irq_ns: get!(cpu.irq_base_ns),
            tag: get!(cpu.tag),
            pid: get!(cpu.pid),
        },
        next: get!(cpu.head).wrapping_sub(1),
        from,
        end: now,
        irq_end: get!(cpu.irq_ns),
    };
    // A loop of its own would be verified step by step, a million
    // instructions: the helper's callback is verified once.
    // SAFETY: the callback takes what is passed here.
    unsafe {
        bpf_loop(
            MAX_STEPS as u32,
            step as *mut c_void,
            (&raw mut walk).cast(),
            0,
        );
    }
    if walk.end > from {
        // SAFETY: an element of a map.
        let kinds = unsafe { &raw mut (*s).blame_ns };
        bump(kinds, kind::UNKNOWN, walk.end - from);
    }
}

/// Books one segment; 1 ends the walk.
extern "C" fn step(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: what `walk` passed, on its stack.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let (begins, end, from) = (walk.segment.start_ns, walk.end, walk.from);
    if begins == 0 || begins > end {
        return 1;
    }
    let start = if begins > from { begins } else { from };
    let overlap = end - start;
    let irq = blame::interrupts(walk.irq_end - walk.segment.irq_ns, overlap, end - begins);
    book(walk.slot, &walk.segment, overlap, irq);
    walk.end = start;
    if begins <= from {
        return 1;
    }
    walk.irq_end = walk.segment.irq_ns;
    let place = walk
        .log
        .cast::<Segment>()
        .wrapping_add(walk.next as usize & (LOG_LEN - 1));
    walk.next = walk.next.wrapping_sub(1);
    walk.segment = Segment {
        start_ns: get!(place.start_ns),
        irq_ns: get!(place.irq_ns),
        tag: get!(place.tag),
        pid: get!(place.pid),
    };
    0
}

/// Books a part of a wait, `irq` of it interrupts.
#[inline(always)]
fn book(s: *mut SlotStats, owner: &Segment, ns: u64, irq: u64) {
    let waiter = get!(s.tag);
    let victim = tag::vm(waiter);
    let which = blame::kind_of(owner.tag, victim);
    let own = ns - irq;
    // SAFETY: an element of a map.
    let kinds = unsafe { &raw mut (*s).blame_ns };
    bump(kinds, which, own);
    if irq != 0 {
        bump(kinds, kind::INTERRUPT, irq);
    }
    if which == kind::VM {
        // The matrix is of what vCPUs waited; its row sums to the VM's ready.
        if tag::role(waiter) == tag::role::VCPU
            && let Some(cell) = maps::blame(victim, tag::vm(owner.tag))
        {
            // Several vCPUs of the victim wait on several CPUs.
            atomic(cell, own);
        }
    } else if which == kind::HOST || which == kind::KERNEL {
        vote(s, owner.pid, own);
    }
}

/// Keeps the task that is behind most of the waits, if one is behind half.
#[inline(always)]
fn vote(s: *mut SlotStats, pid: u32, ns: u64) {
    let votes = get!(s.host_vote_ns);
    if get!(s.host_pid) == pid {
        set!(s.host_vote_ns = votes + ns);
    } else if votes >= ns {
        set!(s.host_vote_ns = votes - ns);
    } else {
        set!(s.host_pid = pid);
        set!(s.host_vote_ns = ns - votes);
    }
}

/// An interrupt begins on this CPU.
#[inline(always)]
pub fn irq_enter(cpu: *mut CpuStats, now: u64) {
    let nesting = get!(cpu.irq_nesting);
    if nesting == 0 {
        set!(cpu.irq_since_ns = now);
    }
    set!(cpu.irq_nesting = nesting + 1);
    add!(cpu.irqs += 1);
}

/// An interrupt ends on this CPU.
#[inline(always)]
pub fn irq_exit(cpu: *mut CpuStats, now: u64) {
    let nesting = get!(cpu.irq_nesting);
    if nesting == 0 {
        // Its beginning was before the programs were attached.
        return;
    }
    set!(cpu.irq_nesting = nesting - 1);
    let since = get!(cpu.irq_since_ns);
    if nesting == 1 && now > since {
        add!(cpu.irq_ns += now - since);
    }
}

/// Samples the run queue of this CPU at its tick.
#[inline(always)]
pub fn depth(cpu: *mut CpuStats, nr_running: u32, now: u64) {
    let last = get!(cpu.depth_at_ns);
    set!(cpu.depth_at_ns = now);
    if nr_running < 2 || last == 0 || now < last || get!(cpu.tag) == tag::IDLE {
        return;
    }
    let waiting = nr_running - 1;
    add!(cpu.depth_ns += (now - last) * u64::from(waiting));
    if waiting > get!(cpu.depth_max) {
        set!(cpu.depth_max = waiting);
    }
}

//! From a guest's doorbell to its backend, and back by an interrupt.
//!
//! A kick is a write that an ioeventfd takes. No tracepoint says so, but a
//! wake-up of a backend by the same vCPU within the same exit does, and then
//! the address is known for a doorbell. What KVM answers itself (local APIC,
//! I/O APIC, PIC, PIT) and what goes to user space is none.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::bpf_get_current_pid_tgid,
    macros::{map, raw_tracepoint},
    maps::{Array, HashMap},
    programs::RawTracePointContext,
};
use headroom_abi::{
    hist::{self, BUCKETS},
    sched::state,
    tag::{self, role},
    virtio::{Doorbell, DoorbellKey, PORT, QueueStats, wake},
};

use crate::cell::{add, atomic, get, set};
use crate::{maps, now, this_cpu};

/// A thread's queues, by slot number.
#[map]
static QUEUE_STATS: Array<QueueStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Doorbells that were proven. No guest can fill it with writes that wake
/// nobody; one that is full costs the kicks of further queues, not others'.
#[map]
static DOORBELLS: HashMap<DoorbellKey, Doorbell> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// How long after the write its eventfd wakes, or it goes to user space: µs,
/// but the thread may be preempted between.
const SAME_EXIT_NS: u64 = 1_000_000;

/// The same where interrupts are not told apart (see [`in_interrupt`]): one
/// that completes a request may wake the same backend on the vCPU's CPU, but
/// hardly so soon.
const SAME_EXIT_ALONE_NS: u64 = 50_000;

/// Lowest bits of [`QueueStats::injection`].
const SLOT_MASK: u64 = 0xffff;

macro_rules! grow {
    ($s:ident . $field:ident += $value:expr) => {
        // SAFETY: an element of a map, checked by the verifier.
        atomic(unsafe { &raw mut (*$s).$field }, $value)
    };
}

/// A port was accessed; `rw` is 1 for a write.
#[raw_tracepoint(tracepoint = "kvm_pio")]
pub fn raw_kvm_pio(ctx: RawTracePointContext) -> i32 {
    let (rw, port): (u32, u32) = (ctx.arg(0), ctx.arg(1));
    if rw == 1 && !kernel_port(port) {
        written(u64::from(port) | PORT, false);
    }
    0
}

/// A device's memory was accessed; `type` is 2 for a write.
#[raw_tracepoint(tracepoint = "kvm_mmio")]
pub fn raw_kvm_mmio(ctx: RawTracePointContext) -> i32 {
    let (kind, address): (u32, u64) = (ctx.arg(0), ctx.arg(2));
    if kind == 2 && !kernel_memory(address) {
        written(address, false);
    }
    0
}

/// An ioeventfd without a value took a write.
#[raw_tracepoint(tracepoint = "kvm_fast_mmio")]
pub fn raw_kvm_fast_mmio(ctx: RawTracePointContext) -> i32 {
    written(ctx.arg(0), true);
    0
}

/// A vCPU thread goes back to user space.
#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn raw_kvm_userspace_exit(ctx: RawTracePointContext) -> i32 {
    /// `KVM_EXIT_IO` and `KVM_EXIT_MMIO` of include/uapi/linux/kvm.h.
    const DEVICE: [u32; 2] = [2, 6];
    let reason: u32 = ctx.arg(0);
    left(reason == DEVICE[0] || reason == DEVICE[1]);
    0
}

/// A message-signalled interrupt is delivered.
#[raw_tracepoint(tracepoint = "kvm_msi_set_irq")]
pub fn raw_kvm_msi_set_irq(_: RawTracePointContext) -> i32 {
    injected();
    0
}

/// The level of an interrupt line changes.
#[raw_tracepoint(tracepoint = "kvm_set_irq")]
pub fn raw_kvm_set_irq(ctx: RawTracePointContext) -> i32 {
    let level: i32 = ctx.arg(1);
    if level != 0 {
        injected();
    }
    0
}

/// A registered thread is about to be woken by `current`; called at
/// `sched_waking`.
#[inline(always)]
pub fn waking(number: u32, now: u64) {
    let (Some(stats), Some(queues)) = (maps::slot(number), QUEUE_STATS.get_ptr_mut(number)) else {
        return;
    };
    let tag = get!(stats.tag);
    let (waker, waker_tag) = current();
    let same_vm = tag::vm(tag) == tag::vm(waker_tag) && tag::is_vm(waker_tag) && !in_interrupt();
    let by_vcpu = same_vm && tag::role(waker_tag) == role::VCPU;
    if tag::role(tag) != role::VCPU {
        let kick = by_vcpu && rang(waker, number, tag::vm(tag), now);
        let woken = backend_woken(queues, get!(stats.state), kick, now);
        if by_vcpu && !kick {
            maybe_rang(waker, number, woken);
        }
    } else if same_vm && !by_vcpu {
        vcpu_woken(queues, waker, now);
    }
}

/// A registered thread takes a CPU; `before` is its state until now.
///
/// A function with its name kept: the kernel verifies it once, not with each
/// path of the scheduler's program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn switched_in(number: u32, before: u32, now: u64) -> u32 {
    if let Some(queues) = QUEUE_STATS.get_ptr_mut(number) {
        settle(queues, before, now);
    }
    0
}

#[inline(always)]
fn settle(queues: *mut QueueStats, before: u32, now: u64) {
    let woken = get!(queues.woken);
    if woken != 0 {
        set!(queues.woken = 0);
        picked_up(queues, woken, before, now);
    }
    let injection = get!(queues.injection);
    if injection != 0 {
        set!(queues.injection = 0);
        interrupted(injection, now);
    }
}

#[inline(always)]
fn backend_woken(queues: *mut QueueStats, before: u32, kick: bool, now: u64) -> u64 {
    let kind = if kick { wake::KICK } else { wake::OTHER };
    // It runs, or it is on its way off the CPU: what it does next will tell.
    let racing = if before == state::RUNNING {
        wake::RACING
    } else {
        0
    };
    let last = get!(queues.woken);
    // A second wake-up without a switch-in between: the first found it running
    // and it went on.
    if last & (wake::RACING | wake::KICK) == wake::RACING | wake::KICK {
        add!(queues.kicks_running += 1);
    } else if last & wake::KICK != 0 {
        // Still waits for a CPU since that kick; this wake-up changes nothing.
        return 0;
    }
    let woken = (now & !wake::MASK) | kind | racing;
    set!(queues.woken = woken);
    woken
}

#[inline(always)]
fn picked_up(queues: *mut QueueStats, woken: u64, before: u32, now: u64) {
    // It left its CPU otherwise than by a sleep: it had stayed on it.
    if woken & wake::RACING != 0 && before != state::SLEEPING {
        if woken & wake::KICK != 0 {
            add!(queues.kicks_running += 1);
        }
        return;
    }
    let delay = now.saturating_sub(woken & !wake::MASK);
    if woken & wake::KICK != 0 {
        add!(queues.pickup_ns += delay);
        if delay > get!(queues.pickup_max_ns) {
            set!(queues.pickup_max_ns = delay);
        }
        // SAFETY: an element of a map.
        count(unsafe { &raw mut (*queues).pickup }, delay);
    } else {
        add!(queues.completion_ns += delay);
        // SAFETY: as above.
        count(unsafe { &raw mut (*queues).completion }, delay);
    }
}

/// The vCPU that was woken by an injection runs.
#[inline(always)]
fn interrupted(injection: u64, now: u64) {
    let Some(backend) = QUEUE_STATS.get_ptr_mut((injection & SLOT_MASK) as u32) else {
        return;
    };
    let delay = now.saturating_sub(injection & !SLOT_MASK);
    grow!(backend.inject_sum_ns += delay);
    // SAFETY: as above.
    count(unsafe { &raw mut (*backend).inject }, delay);
}

/// Whether the vCPU `waker` wakes by a write to a doorbell; if so it is one.
#[inline(always)]
fn rang(waker: u32, backend: u32, vm: u32, now: u64) -> bool {
    let Some(queues) = QUEUE_STATS.get_ptr_mut(waker) else {
        return false;
    };
    let at = get!(queues.write_ns);
    if at == 0 || !same_exit(at, now) {
        // Without KVM's tracepoints (or KVM) there are no writes at all: then
        // the waker alone has to do.
        return get!(queues.writes) == 0;
    }
    set!(queues.write_ns = 0);
    let key = DoorbellKey {
        address: get!(queues.write_address),
        vm: u64::from(vm),
    };
    woke(&key, backend);
    true
}

/// The vCPU `waker` woke `backend` without a write before; the trace of one may
/// follow.
#[inline(always)]
fn maybe_rang(waker: u32, backend: u32, woken: u64) {
    if let Some(queues) = QUEUE_STATS.get_ptr_mut(waker) {
        set!(queues.maybe_slot = u64::from(backend));
        set!(queues.maybe_woken = woken);
    }
}

/// A write that KVM traced after its eventfd took it: if `current` has just
/// woken a backend, it did so by this.
#[inline(always)]
fn rang_before(queues: *mut QueueStats, key: &DoorbellKey) {
    let (woken, slot) = (get!(queues.maybe_woken), get!(queues.maybe_slot) as u32);
    set!(queues.maybe_woken = 0);
    if woken == 0 || !same_exit(woken & !wake::MASK, now()) {
        return;
    }
    let Some(backend) = QUEUE_STATS.get_ptr_mut(slot) else {
        return;
    };
    // Picked up already, within this µs: it stands among the completions.
    let kick = (woken & !wake::OTHER) | wake::KICK;
    // SAFETY: a word of a map element.
    unsafe { exchange(&raw mut (*backend).woken, woken, kick) };
    woke(key, slot);
}

/// A write to a doorbell woke `backend`.
#[inline(always)]
fn woke(key: &DoorbellKey, backend: u32) {
    if let Some(bell) = DOORBELLS.get_ptr_mut(key) {
        grow!(bell.wakes += 1);
        set!(bell.slot = u64::from(backend));
        return;
    }
    let bell = Doorbell {
        writes: 1,
        exits: 0,
        wakes: 1,
        slot: u64::from(backend),
    };
    // Full: this queue's kicks stay uncounted, its pickups are counted.
    let _ = DOORBELLS.insert(key, &bell, u64::from(BPF_NOEXIST));
}

/// `current` wrote to an address that may be a doorbell, or is one for sure.
#[inline(always)]
fn written(address: u64, sure: bool) {
    let (number, tag) = current();
    if tag::role(tag) != role::VCPU {
        return;
    }
    let Some(queues) = QUEUE_STATS.get_ptr_mut(number) else {
        return;
    };
    let key = DoorbellKey {
        address,
        vm: u64::from(tag::vm(tag)),
    };
    if let Some(bell) = DOORBELLS.get_ptr_mut(&key) {
        grow!(bell.writes += 1);
    } else if sure {
        let bell = Doorbell {
            writes: 1,
            exits: 0,
            wakes: 0,
            slot: 0,
        };
        let _ = DOORBELLS.insert(&key, &bell, u64::from(BPF_NOEXIST));
    }
    add!(queues.writes += 1);
    if sure {
        rang_before(queues, &key);
        set!(queues.write_ns = 0);
        return;
    }
    set!(queues.write_address = address);
    set!(queues.write_ns = now());
}

/// `current` leaves for user space; for a device, nobody in the kernel took the
/// write.
#[inline(always)]
fn left(device: bool) {
    let (number, tag) = current();
    if number == 0 {
        return;
    }
    let Some(queues) = QUEUE_STATS.get_ptr_mut(number) else {
        return;
    };
    let at = get!(queues.write_ns);
    if at == 0 {
        return;
    }
    set!(queues.write_ns = 0);
    if !device || !same_exit(at, now()) {
        return;
    }
    let key = DoorbellKey {
        address: get!(queues.write_address),
        vm: u64::from(tag::vm(tag)),
    };
    if let Some(bell) = DOORBELLS.get_ptr_mut(&key) {
        grow!(bell.exits += 1);
    }
}

/// `current` injects an interrupt into its VM.
#[inline(always)]
fn injected() {
    let (number, tag) = current();
    if number == 0 || tag::role(tag) == role::VCPU {
        return;
    }
    let Some(queues) = QUEUE_STATS.get_ptr_mut(number) else {
        return;
    };
    let (now, last) = (now(), get!(queues.inject_ns));
    // A line routed as a message passes both tracepoints.
    if last != 0 && now.saturating_sub(last) < SAME_CALL_NS {
        return;
    }
    grow!(queues.injected += 1);
    set!(queues.inject_ns = now);
}

/// Time between the two tracepoints of one injection.
const SAME_CALL_NS: u64 = 2_000;

/// The backend `waker` wakes a vCPU: by its injection, if that was just now.
#[inline(always)]
fn vcpu_woken(vcpu: *mut QueueStats, waker: u32, now: u64) {
    let Some(backend) = QUEUE_STATS.get_ptr_mut(waker) else {
        return;
    };
    let at = get!(backend.inject_ns);
    if at == 0 {
        return;
    }
    set!(backend.inject_ns = 0);
    if same_exit(at, now) {
        set!(vcpu.injection = (at & !SLOT_MASK) | (u64::from(waker) & SLOT_MASK));
    }
}

/// Ports of the devices in the kernel: PIC, PIT and its gate (arch/x86/kvm:
/// i8259.c, i8254.c).
#[inline(always)]
fn kernel_port(port: u32) -> bool {
    matches!(port, 0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 | 0x40..=0x43 | 0x61)
}

/// Pages of the I/O APICs and of the local APIC, 2 MiB from 0xfec00000 on
/// (and the messages' 1 MiB): no device lies there.
#[inline(always)]
fn kernel_memory(address: u64) -> bool {
    address >> 20 == 0xfec || address >> 20 == 0xfee
}

/// Slot and tag of the thread that runs here, 0 for an unregistered one.
#[inline(always)]
fn current() -> (u32, u32) {
    let number = maps::slot_of(bpf_get_current_pid_tgid() as u32);
    if number == 0 {
        return (0, 0);
    }
    (number, maps::slot(number).map_or(0, |stats| get!(stats.tag)))
}

/// Whether an event now may belong to the exit in which something happened.
#[inline(always)]
fn same_exit(at: u64, now: u64) -> bool {
    let apart = maps::cpu(this_cpu()).is_some_and(|cpu| get!(cpu.irqs) != 0);
    let limit = if apart {
        SAME_EXIT_NS
    } else {
        SAME_EXIT_ALONE_NS
    };
    now.saturating_sub(at) <= limit
}

/// Whether it was interrupted: what happens now is not its doing. Known where
/// the interrupts' family is attached.
#[inline(always)]
fn in_interrupt() -> bool {
    maps::cpu(this_cpu()).is_some_and(|cpu| get!(cpu.irq_nesting) != 0)
}

#[inline(always)]
fn count(hist: *mut [u32; BUCKETS], ns: u64) {
    let bucket = hist::index(ns);
    if bucket < BUCKETS {
        let counter = hist.cast::<u32>().wrapping_add(bucket);
        // By hand as `cell::atomic`: injections are counted on the CPUs of all
        // vCPUs.
        // SAFETY: in bounds by the line above, and aligned.
        unsafe {
            core::arch::asm!("lock *(u32 *)(r1 + 0) += w2", in("r1") counter, in("r2") 1u64);
        }
    }
}

/// Writes `new` where `old` still stands.
///
/// # Safety
/// `word` is an aligned word of a map element.
#[inline(always)]
unsafe fn exchange(word: *mut u64, old: u64, new: u64) {
    // SAFETY: the caller's word.
    unsafe {
        core::arch::asm!("r0 = cmpxchg_64(r1 + 0, r0, r2)",
            inout("r0") old => _, in("r1") word, in("r2") new);
    }
}

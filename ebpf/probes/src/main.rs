//! The BPF programs of headroom: who waits for a CPU, how long, and why.
//!
//! One module a family; families are attached and fail one by one.
#![no_std]
#![no_main]
// For one instruction, see `cell::atomic`.
#![feature(asm_experimental_arch)]

mod block;
mod cell;
mod concurrency;
mod header;
mod hook;
mod irq;
mod maps;
mod memory;
mod numa;
mod owner;
mod sched;
mod net;
mod slot;
mod task;
mod virtio;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};

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

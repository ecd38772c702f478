//! Virtqueues as the scheduler and KVM's own tracepoints show them: one record
//! a registered thread, one doorbell an address that was seen to wake.

use crate::hist::BUCKETS;

/// Kinds of an open wake-up, in the lowest bits of [`QueueStats::woken`].
pub mod wake {
    /// By the doorbell of a vCPU of the same VM.
    pub const KICK: u64 = 1;
    /// By anything else: a completion, a worker, a timer.
    pub const OTHER: u64 = 2;
    /// The thread was on a CPU: it may have stayed there, and then this was
    /// no wake-up at all.
    pub const RACING: u64 = 4;
    /// All of the above; the rest of the word is the time, ns.
    pub const MASK: u64 = 7;
}

/// Marks the address of a doorbell as a port number.
pub const PORT: u64 = 1 << 63;

/// One registered thread. A vCPU uses the first six words alone, a backend
/// (iothread, vhost worker, main loop) the others; what stands for injections
/// also grows from the CPUs of the vCPUs, atomically.
///
/// There is no sequence lock: a backend is woken on one CPU and switched in on
/// another, under different locks. Each word is consistent in itself and only
/// grows (counts wrap at 2^32); a reader may see one event half counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct QueueStats {
    /// vCPU: when it last wrote to what may be a doorbell, 0 when that was
    /// settled.
    pub write_ns: u64,
    /// vCPU: where to; with [`PORT`] for a port.
    pub write_address: u64,
    /// vCPU: such writes so far; 0 where KVM's tracepoints are not attached.
    pub writes: u64,
    /// vCPU: [`QueueStats::woken`] of the backend it woke last without such a
    /// write: where KVM traces a write only after its eventfd, that may have
    /// been a kick all the same.
    pub maybe_woken: u64,
    /// vCPU: slot of that backend.
    pub maybe_slot: u64,
    /// vCPU: injection that woke it, while it was not yet switched in: the
    /// time, and in the lowest 16 bits the backend's slot.
    pub injection: u64,
    /// Backend: wake-up since when it was not yet switched in, of one of
    /// [`wake`]; 0 for none.
    pub woken: u64,
    /// Backend: wake-ups by kicks that found it on a CPU.
    pub kicks_running: u64,
    /// Backend: pickups, ns, the sum of what [`QueueStats::pickup`] counts.
    pub pickup_ns: u64,
    /// Backend: longest of these.
    pub pickup_max_ns: u64,
    /// Backend: sum of what [`QueueStats::completion`] counts.
    pub completion_ns: u64,
    /// Backend: injected an interrupt at this time that has woken no vCPU yet;
    /// 0 for none.
    pub inject_ns: u64,
    /// Backend: interrupts injected.
    pub injected: u64,
    /// Backend: sum of what [`QueueStats::inject`] counts.
    pub inject_sum_ns: u64,
    /// Backend: `sched_waking` by a kick to its switch-in.
    pub pickup: [u32; BUCKETS],
    /// Backend: any other waking to its switch-in.
    pub completion: [u32; BUCKETS],
    /// Backend: injection to the switch-in of the vCPU it woke.
    pub inject: [u32; BUCKETS],
}

impl QueueStats {
    /// Nothing counted.
    pub const EMPTY: Self = Self {
        write_ns: 0,
        write_address: 0,
        writes: 0,
        maybe_woken: 0,
        maybe_slot: 0,
        injection: 0,
        woken: 0,
        kicks_running: 0,
        pickup_ns: 0,
        pickup_max_ns: 0,
        completion_ns: 0,
        inject_ns: 0,
        injected: 0,
        inject_sum_ns: 0,
        pickup: [0; BUCKETS],
        completion: [0; BUCKETS],
        inject: [0; BUCKETS],
    };
}

/// Which doorbell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DoorbellKey {
    /// Guest physical address, or a port number with [`PORT`].
    pub address: u64,
    /// Number of the VM.
    pub vm: u64,
}

/// An address that was proven a doorbell: a write to it woke a backend within
/// the same exit, or KVM said that an ioeventfd took it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Doorbell {
    /// Writes since then, that one included.
    pub writes: u64,
    /// Those that went to user space instead of an eventfd.
    pub exits: u64,
    /// Those that woke the backend.
    pub wakes: u64,
    /// Slot of the backend that was woken last, 0 for none yet.
    pub slot: u64,
}

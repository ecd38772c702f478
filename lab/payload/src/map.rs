//! The guest's memory, as host and guest both see it: guest physical addresses
//! of the knobs that the host turns and of the figures that the guest keeps.

/// Where the firmware lies below 1 MiB.
pub const ROM: u64 = 0xf_0000;

// Knobs, read by the guest each time it needs them.

/// Busy share of each vCPU, percent, `u8`.
pub const LOAD: u64 = 0x1000;
/// 1 = the disk is used, `u8`.
pub const DISK_ON: u64 = 0x1001;
/// Share of writes, percent, `u8`.
pub const WRITES: u64 = 0x1002;
/// 1 = the first disk has a queue for each vCPU; 0 = vCPU n has disk n, `u8`.
pub const QUEUE_PER_VCPU: u64 = 0x1003;
/// Number of vCPUs, `u32`.
pub const VCPUS: u64 = 0x1004;
/// µs between two requests of a queue, `u32`, at most half a second; 0 = as
/// soon as the depth allows.
pub const INTERVAL_US: u64 = 0x1008;
/// Requests in flight of a queue at most, `u32`, 1..=[`SLOTS`].
pub const DEPTH: u64 = 0x100c;
/// Sectors of a request, `u32`, 1..=8.
pub const SECTORS: u64 = 0x1010;
/// Sectors of the disk less one, a power of two less one, `u32`.
pub const SPAN: u64 = 0x1014;
/// Pages dirtied every 10 ms, `u32`.
pub const TOUCH_PAGES: u64 = 0x1018;
/// MiB above the first 16 that are walked over, `u32`.
pub const TOUCH_MIB: u64 = 0x101c;

// Figures of the guest as a whole.

/// TSC ticks in a millisecond, `u32`.
pub const TICKS_PER_MS: u64 = 0x1100;
/// 1 once the guest runs, `u32`.
pub const UP: u64 = 0x1104;
/// Disks found, `u32`.
pub const DISKS: u64 = 0x1108;
/// Pages dirtied: count, sum and longest in ticks, `u64` each.
pub const TOUCHED: u64 = 0x1110;
/// 1 if KVM tells steal, `u32`.
pub const HAS_STEAL: u64 = 0x110c;
/// KVM's paravirtual clock.
pub const CLOCK: u64 = 0x1200;
/// KVM's steal time of vCPU 0, ns, `u64`; the next vCPU's is 64 bytes on.
pub const STEAL: u64 = 0x1400;
/// Bytes from one vCPU's steal time to the next one's.
pub const STEAL_STEP: u64 = 64;
/// Turns of vCPU 0's busy loop, `u32`; the next vCPU's is eight bytes on.
pub const LOOPS: u64 = 0x2000;

// A state block for each vCPU: queue, requests, figures. Within it first the
// rings as a legacy device wants a queue of 256.

/// State block of vCPU 0.
pub const STATE: u64 = 0x10_0000;
/// Bytes from one state block to the next.
pub const STATE_STEP: u64 = 0x8_0000;
/// Requests that a queue has room for.
pub const SLOTS: u32 = 64;
pub(crate) const AVAIL: u64 = 0x1000;
pub(crate) const USED: u64 = 0x2000;
pub(crate) const HEADERS: u64 = 0x3000;
pub(crate) const STATUS: u64 = 0x3400;
pub(crate) const SENT: u64 = 0x3800;
pub(crate) const FREE: u64 = 0x3a00;
pub(crate) const NOTIFY: u64 = 0x3b00;
pub(crate) const QUEUE: u64 = 0x3b04;
pub(crate) const NFREE: u64 = 0x3b08;
pub(crate) const SEEN: u64 = 0x3b0c;
pub(crate) const NEXT: u64 = 0x3b10;
pub(crate) const END: u64 = 0x3b18;
pub(crate) const SEED: u64 = 0x3b20;
pub(crate) const BUSY: u64 = 0x3b24;
pub(crate) const TOUCH_NEXT: u64 = 0x3b28;
/// Requests completed: count, sum and longest in ticks, `u64` each.
pub const DONE: u64 = 0x3c00;
/// Requests that the device failed, `u32`.
pub const ERRORS: u64 = 0x3c18;
/// Interrupts of the disk, `u32`.
pub const INTERRUPTS: u64 = 0x3c1c;
/// Kicks given, `u32`; a device that polls wants none.
pub const KICKS: u64 = 0x3c20;
/// Writes submitted, `u32`.
pub const WRITTEN: u64 = 0x3c24;
pub(crate) const DATA: u64 = 0x1_0000;

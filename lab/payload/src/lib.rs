//! The lab's guest: a kilobyte of code that keeps each vCPU busy for a share
//! of every 10 ms, drives virtio-blk disks at a given rate and dirties memory.
//!
//! It is the machine's firmware itself (`-bios`), so it runs at once after
//! QEMU starts, needs no assembler on the operator's machine and runs wherever
//! KVM runs. Its knobs and figures are guest memory which the host maps too:
//! [`map`].

pub mod map;

use std::arch::global_asm;

/// vCPUs that have a stack and a state block in the payload's memory map.
pub const MAX_VCPUS: u32 = 16;

const ROM_BYTES: usize = 64 * 1024;
/// Offset of the reset vector: the last 16 bytes below 4 GiB.
const RESET: usize = ROM_BYTES - 16;

global_asm!(
    include_str!("guest.s"),
    include_str!("disk.s"),
    ROM = const map::ROM,
    LOAD = const map::LOAD,
    DISK_ON = const map::DISK_ON,
    WRITES = const map::WRITES,
    QUEUE_PER_VCPU = const map::QUEUE_PER_VCPU,
    VCPUS = const map::VCPUS,
    INTERVAL_US = const map::INTERVAL_US,
    DEPTH = const map::DEPTH,
    SECTORS = const map::SECTORS,
    SPAN = const map::SPAN,
    TOUCH_PAGES = const map::TOUCH_PAGES,
    TOUCH_MIB = const map::TOUCH_MIB,
    TICKS_PER_MS = const map::TICKS_PER_MS,
    UP = const map::UP,
    DISKS = const map::DISKS,
    TOUCHED = const map::TOUCHED,
    HAS_STEAL = const map::HAS_STEAL,
    CLOCK = const map::CLOCK,
    STEAL = const map::STEAL,
    LOOPS = const map::LOOPS,
    STATE = const map::STATE,
    STATE_STEP = const map::STATE_STEP,
    SLOTS = const map::SLOTS,
    AVAIL = const map::AVAIL,
    USED = const map::USED,
    HEADERS = const map::HEADERS,
    STATUS = const map::STATUS,
    SENT = const map::SENT,
    FREE = const map::FREE,
    NOTIFY = const map::NOTIFY,
    QUEUE = const map::QUEUE,
    NFREE = const map::NFREE,
    SEEN = const map::SEEN,
    NEXT = const map::NEXT,
    END = const map::END,
    SEED = const map::SEED,
    BUSY = const map::BUSY,
    TOUCH_NEXT = const map::TOUCH_NEXT,
    DONE = const map::DONE,
    ERRORS = const map::ERRORS,
    INTERRUPTS = const map::INTERRUPTS,
    KICKS = const map::KICKS,
    WRITTEN = const map::WRITTEN,
    DATA = const map::DATA,
);

unsafe extern "C" {
    #[link_name = "headroom_lab_begin"]
    static BEGIN: u8;
    #[link_name = "headroom_lab_end"]
    static END: u8;
}

/// The firmware image: 64 KiB with the payload at its start (guest address
/// [`map::ROM`]) and a far jump to it at the reset vector.
#[must_use]
pub fn rom() -> Vec<u8> {
    let (begin, end) = (&raw const BEGIN, &raw const END);
    // SAFETY: both symbols are defined by the block above, in one section and
    // in this order, so they delimit initialised, read-only bytes.
    let code = unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) };
    let mut rom = vec![0xf4; ROM_BYTES]; // hlt
    rom[..code.len()].copy_from_slice(code);
    rom[RESET..RESET + 5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rom_begins_with_cli_and_ends_with_a_jump_to_it() {
        let rom = rom();
        assert_eq!(rom.len(), ROM_BYTES);
        assert_eq!(rom[0], 0xfa);
        assert_eq!(rom[RESET..RESET + 5], [0xea, 0, 0, 0, 0xf0]);
        let code = rom.iter().rposition(|b| *b != 0xf4 && *b != 0xea);
        assert!(code.is_some());
    }
}

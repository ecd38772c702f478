//! The lab's guest: 300 bytes of real-mode code that keep each vCPU busy for
//! a share of every 10 ms and can read the first IDE disk.
//!
//! It is the machine's firmware itself (`-bios`), so it runs at once after
//! QEMU starts, needs no assembler on the operator's machine and runs wherever
//! KVM runs. All its knobs are bytes of guest memory which the host maps too.

use std::arch::global_asm;

/// Guest physical address of the busy share, percent, one byte; the next byte
/// is the disk switch: 1 reads a sector each period.
pub const LOAD_AT: u64 = 0x1000;
/// Guest physical address of the first vCPU's loop counter, `u32`; the next
/// vCPU's lies eight bytes on.
pub const LOOPS_AT: u64 = 0x2000;
/// Guest physical address of the number of sectors read, `u32`.
pub const SECTORS_AT: u64 = 0x1004;
/// vCPUs that have a stack in the payload's memory map.
pub const MAX_VCPUS: u32 = 16;

const ROM_BYTES: usize = 64 * 1024;
/// Offset of the reset vector: the last 16 bytes below 4 GiB.
const RESET: usize = ROM_BYTES - 16;

// Registers: esi = x2APIC id, bp = "timer fired", edi = busy ns of the period.
// One-shot local APIC timer through the x2APIC MSRs: KVM counts 1 ns a tick.
global_asm!(
    ".pushsection .rodata.headroom_lab, \"a\"",
    ".balign 16",
    ".code16",
    "headroom_lab_begin:",
    // Both the first processor (by the reset vector) and the others (start-up
    // vector 0xF0) begin here with cs = 0xF000.
    "cli",
    "cld",
    "xor ax, ax",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov ecx, 0x1b", // IA32_APIC_BASE: x2APIC on
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "mov ebx, eax",
    "mov ecx, 0x802", // x2APIC id
    "rdmsr",
    "mov esi, eax",
    "shl eax, 9", // 512 bytes of stack each, below 0x8000
    "mov esp, 0x8000",
    "sub esp, eax",
    "xor edx, edx",
    "mov ecx, 0x80f", // spurious vector 255, APIC on
    "mov eax, 0x1ff",
    "wrmsr",
    "mov ecx, 0x83e", // timer: divide by 1
    "mov eax, 0xb",
    "wrmsr",
    "mov ecx, 0x832", // timer: one shot, vector 0x40
    "mov eax, 0x40",
    "wrmsr",
    "test ebx, 0x100", // bootstrap processor?
    "jz 2f",
    ".byte 0xc7, 0x06", // mov word ptr [0x100], offset of the handler
    ".word 0x100, headroom_lab_isr - headroom_lab_begin",
    "mov word ptr ds:[0x102], 0xf000",
    ".byte 0xc7, 0x06", // mov word ptr [0x3fc], offset of the handler
    ".word 0x3fc, headroom_lab_spurious - headroom_lab_begin",
    "mov word ptr ds:[0x3fe], 0xf000",
    "mov al, 0xff", // the old interrupt controllers stay silent
    "out 0x21, al",
    "out 0xa1, al",
    "mov eax, 0xc4500", // INIT to all others
    "call headroom_lab_icr",
    "mov eax, 10000000",
    "call headroom_lab_idle",
    "mov eax, 0xc46f0", // start-up twice, as the manual asks
    "call headroom_lab_icr",
    "mov eax, 1000000",
    "call headroom_lab_idle",
    "mov eax, 0xc46f0",
    "call headroom_lab_icr",
    "2:",
    "movzx eax, byte ptr ds:[0x1000]",
    "cmp eax, 100",
    "jbe 3f",
    "mov eax, 100",
    "3:",
    "imul edi, eax, 100000",
    "mov eax, edi",
    "call headroom_lab_busy",
    "mov eax, 10000000",
    "sub eax, edi",
    "call headroom_lab_idle",
    "test esi, esi",
    "jnz 2b",
    "cmp byte ptr ds:[0x1001], 1",
    "jne 2b",
    "call headroom_lab_read",
    "jmp 2b",
    // eax = command
    "headroom_lab_icr:",
    "mov ecx, 0x830",
    "xor edx, edx",
    "wrmsr",
    "ret",
    // eax = ns
    "headroom_lab_arm:",
    "xor bp, bp",
    "mov ecx, 0x838",
    "xor edx, edx",
    "wrmsr",
    "ret",
    "headroom_lab_busy:",
    "test eax, eax",
    "jz 5f",
    "call headroom_lab_arm",
    "sti",
    "4:",
    "inc dword ptr ds:[esi*8 + 0x2000]",
    "test bp, bp",
    "jz 4b",
    "cli",
    "5:",
    "ret",
    "headroom_lab_idle:",
    "test eax, eax",
    "jz 5f",
    "call headroom_lab_arm",
    "4:",
    "test bp, bp",
    "jnz 5f",
    "sti", // takes effect after hlt began, so the timer is never missed
    "hlt",
    "cli",
    "jmp 4b",
    "5:",
    "ret",
    "headroom_lab_isr:",
    "push eax",
    "push ecx",
    "push edx",
    "mov ecx, 0x80b", // end of interrupt
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "pop edx",
    "pop ecx",
    "pop eax",
    "mov bp, 1",
    "headroom_lab_spurious:",
    "iret",
    // One sector by programmed IO from the first IDE disk, walking over 64 MiB.
    "headroom_lab_read:",
    "mov dx, 0x1f6",
    "mov al, 0xe0",
    "out dx, al",
    "mov dx, 0x1f2",
    "mov al, 1",
    "out dx, al",
    "mov eax, dword ptr ds:[0x1004]",
    "shl eax, 3", // 4 KiB apart: another page of the host each time
    "inc dx",
    "out dx, al",
    "inc dx",
    "shr eax, 8",
    "out dx, al",
    "inc dx",
    "shr eax, 8",
    "and al, 1",
    "out dx, al",
    "mov dx, 0x1f7",
    "mov al, 0x20", // READ SECTORS
    "out dx, al",
    "4:",
    "in al, dx",
    "test al, 0x80", // busy
    "jnz 4b",
    "test al, 0x08", // data there?
    "jz 5f",
    "mov dx, 0x1f0",
    "mov cx, 256",
    "push di",
    "mov di, 0x3000",
    "rep insw",
    "pop di",
    "inc dword ptr ds:[0x1004]",
    "5:",
    "ret",
    "headroom_lab_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "headroom_lab_begin"]
    static BEGIN: u8;
    #[link_name = "headroom_lab_end"]
    static END: u8;
}

/// The firmware image: 64 KiB with the payload at its start (guest address
/// `0xF0000`) and a far jump to it at the reset vector.
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

// The lab guest's firmware, 32-bit flat after the first instructions. All names
// in braces are constants of payload/map.rs, so that the host, which maps this
// memory too, and the guest agree about every address.
//
// Throughout: ebp = state block of this vCPU, esi = its x2APIC id, interrupts
// off except while it halts or between two turns of the busy loop.

.pushsection .rodata.headroom_lab, "a"
.balign 16
.code16
headroom_lab_begin:
    // The first processor comes here from the reset vector, the others by the
    // start-up vector 0xF0; both with cs = 0xF000 in real mode.
    cli
    cld
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x16      // lgdt cs:[...]
    .word headroom_lab_gdtr - headroom_lab_begin
    mov eax, cr0
    and eax, 0x9fffffff                     // caches on, as every firmware does
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xea                        // far jump into 32-bit code
    .long headroom_lab_flat - headroom_lab_begin + {ROM}
    .word 8

.code32
headroom_lab_flat:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    .byte 0x0f, 0x01, 0x1d                  // lidt [...]
    .long headroom_lab_idtr - headroom_lab_begin + {ROM}
    mov ecx, 0x1b                           // IA32_APIC_BASE: x2APIC on
    rdmsr
    or eax, 0xc00
    wrmsr
    mov ebx, eax
    mov ecx, 0x802                          // x2APIC id
    rdmsr
    mov esi, eax
    mov ebp, eax
    imul ebp, ebp, {STATE_STEP}
    add ebp, {STATE}
    shl eax, 9                              // 512 bytes of stack each, below 0x8000
    mov esp, 0x8000
    sub esp, eax
    xor edx, edx
    mov ecx, 0x80f                          // APIC on, spurious vector 0x4f
    mov eax, 0x14f
    wrmsr
    mov ecx, 0x83e                          // timer: divide by 1; KVM counts 1 ns a tick
    mov eax, 0xb
    wrmsr
    mov ecx, 0x832                          // timer: one shot, vector 0x40
    mov eax, 0x40
    wrmsr
    push ebx
    mov eax, 0x40000001                     // does KVM tell steal?
    cpuid
    pop ebx
    test eax, 0x20
    jz .Llab_no_steal
    mov eax, esi                            // MSR_KVM_STEAL_TIME: 64 bytes a vCPU
    shl eax, 6
    add eax, {STEAL} + 1
    xor edx, edx
    mov ecx, 0x4b564d03
    wrmsr
    mov dword ptr ds:[{HAS_STEAL}], 1
.Llab_no_steal:
    test ebx, 0x100                         // bootstrap processor?
    jz headroom_lab_main
    mov al, 0xff                            // the old interrupt controllers stay silent
    out 0x21, al
    out 0xa1, al
    call headroom_lab_clock
    call headroom_lab_disks
    mov eax, 0xc4500                        // INIT to all others
    call headroom_lab_icr
    mov ecx, 10
    call headroom_lab_delay
    mov eax, 0xc46f0                        // start-up twice, as the manual asks
    call headroom_lab_icr
    mov ecx, 1
    call headroom_lab_delay
    mov eax, 0xc46f0
    call headroom_lab_icr
    mov dword ptr ds:[{UP}], 1

// Each period of 10 ms: busy for the asked share, else halted; the disk is
// looked after in both. One who was held up begins the next period late.
headroom_lab_main:
    rdtsc
    mov dword ptr [ebp + {END}], eax
    mov dword ptr [ebp + {END} + 4], edx
    movzx eax, byte ptr ds:[{LOAD}]
    cmp eax, 100
    jbe .Llab_load
    mov eax, 100
.Llab_load:
    push eax
    mov dword ptr [ebp + {BUSY}], 1
    call headroom_lab_phase
    pop ecx
    mov eax, 100
    sub eax, ecx
    mov dword ptr [ebp + {BUSY}], 0
    call headroom_lab_phase
    test esi, esi
    jnz headroom_lab_main
    call headroom_lab_touch
    jmp headroom_lab_main

// Until eax percent of a period after the last phase's end.
headroom_lab_phase:
    mov ecx, 10
    mul dword ptr ds:[{TICKS_PER_MS}]
    div ecx                                 // percent of 10 ms = percent / 10 ms
    add dword ptr [ebp + {END}], eax
    adc dword ptr [ebp + {END} + 4], 0
.Llab_turn:
    call headroom_lab_pump
    rdtsc
    sub eax, dword ptr [ebp + {END}]
    sbb edx, dword ptr [ebp + {END} + 4]
    jns .Llab_phase_done
    cmp dword ptr [ebp + {BUSY}], 0
    je .Llab_idle
    inc dword ptr ds:[esi * 8 + {LOOPS}]
    sti
    nop
    cli
    jmp .Llab_turn
.Llab_idle:
    neg eax                                 // 10 ms at most: it fits
    mov edi, eax
    call headroom_lab_due
    cmp eax, edi
    jae .Llab_arm
    mov edi, eax
.Llab_arm:
    mov eax, 1000000                        // ticks to ns, rounded up
    mul edi
    div dword ptr ds:[{TICKS_PER_MS}]
    inc eax
    xor edx, edx
    mov ecx, 0x838
    wrmsr
    sti                                     // takes effect after hlt began: no
    hlt                                     // interrupt is ever missed
    cli
    jmp .Llab_turn
.Llab_phase_done:
    ret

// eax = command for the other processors
headroom_lab_icr:
    mov ecx, 0x830
    xor edx, edx
    wrmsr
    ret

// ecx = ms
headroom_lab_delay:
    mov eax, dword ptr ds:[{TICKS_PER_MS}]
    mul ecx
    mov ecx, eax
    rdtsc
    mov ebx, eax
.Llab_delay:
    rdtsc
    sub eax, ebx
    cmp eax, ecx
    jb .Llab_delay
    ret

// TSC ticks in a millisecond, from KVM's paravirtual clock: that is the host's
// own calibration. Without it this waits for ever and the host gives up.
headroom_lab_clock:
    mov ecx, 0x4b564d01                     // MSR_KVM_SYSTEM_TIME_NEW
    mov eax, {CLOCK} + 1
    xor edx, edx
    wrmsr
.Llab_clock:
    mov ebx, dword ptr ds:[{CLOCK} + 24]    // ns = (ticks << shift) * mul >> 32
    test ebx, ebx
    jz .Llab_clock
    xor eax, eax
    mov edx, 1000000
    div ebx
    movsx ecx, byte ptr ds:[{CLOCK} + 28]
    test ecx, ecx
    js .Llab_slower
    shr eax, cl
    jmp .Llab_ticks
.Llab_slower:
    neg ecx
    shl eax, cl
.Llab_ticks:
    mov dword ptr ds:[{TICKS_PER_MS}], eax
    ret

// Dirties the asked number of pages, walking over the asked MiB above 16 MiB.
headroom_lab_touch:
    mov ebx, dword ptr ds:[{TOUCH_PAGES}]
    mov edi, dword ptr ds:[{TOUCH_MIB}]
    shl edi, 20
    jz .Llab_touch_done
.Llab_touch:
    sub ebx, 1
    jc .Llab_touch_done
    mov ecx, dword ptr [ebp + {TOUCH_NEXT}]
    cmp ecx, edi
    jb .Llab_touch_here
    xor ecx, ecx
.Llab_touch_here:
    rdtsc
    push edx
    push eax
    inc dword ptr [ecx + 0x1000000]
    add ecx, 4096
    mov dword ptr [ebp + {TOUCH_NEXT}], ecx
    rdtsc
    pop ecx
    sub eax, ecx
    pop ecx
    sbb edx, ecx
    mov ecx, {TOUCHED}
    call headroom_lab_tally
    jmp .Llab_touch
.Llab_touch_done:
    ret

// A thing of edx:eax ticks more at ecx: count, sum and longest, 64 bits each.
headroom_lab_tally:
    add dword ptr [ecx], 1
    adc dword ptr [ecx + 4], 0
    add dword ptr [ecx + 8], eax
    adc dword ptr [ecx + 12], edx
    cmp edx, dword ptr [ecx + 20]
    jb .Llab_tally_done
    ja .Llab_tally_longest
    cmp eax, dword ptr [ecx + 16]
    jbe .Llab_tally_done
.Llab_tally_longest:
    mov dword ptr [ecx + 16], eax
    mov dword ptr [ecx + 20], edx
.Llab_tally_done:
    ret

// Interrupts come only after hlt or in the busy loop, where the next thing is
// cli and no flags are of use. So a plain return will do, and it must: where KVM
// emulates the guest, because the host has no hardware virtualization itself, an
// iret in protected mode never ends.
headroom_lab_isr_disk:
    push eax
    mov eax, 1
    jmp .Llab_isr
headroom_lab_isr_timer:
    push eax
    xor eax, eax
.Llab_isr:
    add dword ptr [ebp + {INTERRUPTS}], eax
    push ecx
    push edx
    mov ecx, 0x80b                          // end of interrupt
    xor eax, eax
    xor edx, edx
    wrmsr
    pop edx
    pop ecx
    pop eax
headroom_lab_isr_spurious:
    ret 8                                   // over cs and flags

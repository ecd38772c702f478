// The lab guest's virtio-blk driver: legacy PCI devices (virtio 1.2, 4.1.4.8),
// one queue of 256 for a vCPU, MSI-X. It needs no set-up by a firmware.

// edi = PCI configuration address -> eax = value; keeps all but edx
headroom_lab_pci_read:
    mov eax, edi
    mov edx, 0xcf8
    out dx, eax
    mov edx, 0xcfc
    in eax, dx
    ret

// edi = PCI configuration address, eax = value; keeps all but edx
headroom_lab_pci_write:
    push eax
    mov eax, edi
    mov edx, 0xcf8
    out dx, eax
    mov edx, 0xcfc
    pop eax
    out dx, eax
    ret

// Sets up every virtio-blk device of bus 0. The n-th belongs to vCPU n, or the
// first to all vCPUs with a queue each where the host asked for that.
headroom_lab_disks:
    xor ebx, ebx
.Llab_slot:
    mov edi, ebx
    shl edi, 11
    or edi, 0x80000000
    call headroom_lab_pci_read
    cmp eax, 0x10011af4                     // virtio-blk, legacy
    jne .Llab_next_slot
    mov eax, dword ptr ds:[{DISKS}]
    cmp eax, dword ptr ds:[{VCPUS}]
    jae .Llab_next_slot
    push ebx
    call headroom_lab_disk
    pop ebx
    inc dword ptr ds:[{DISKS}]
.Llab_next_slot:
    inc ebx
    cmp ebx, 32
    jb .Llab_slot
    ret

// edi = the device's configuration address
headroom_lab_disk:
    push edi
    mov ecx, dword ptr ds:[{DISKS}]
    mov ebx, ecx                            // ebx = its IO ports
    shl ebx, 8
    add ebx, 0xc000
    shl ecx, 12                             // ecx = its MSI-X table
    add ecx, 0xfe000000
    mov eax, ebx
    add edi, 0x10                           // BAR0
    call headroom_lab_pci_write
    mov eax, ecx
    add edi, 4                              // BAR1
    call headroom_lab_pci_write
    sub edi, 0x10                           // command: ports, memory, bus master
    call headroom_lab_pci_read
    or eax, 7
    call headroom_lab_pci_write
    add edi, 0x30                           // first capability
    call headroom_lab_pci_read
.Llab_capability:
    and eax, 0xfc
    jz .Llab_disk_unusable
    mov edi, dword ptr [esp]
    or edi, eax
    call headroom_lab_pci_read
    cmp al, 0x11                            // MSI-X
    je .Llab_msix
    shr eax, 8
    jmp .Llab_capability
.Llab_msix:
    or eax, 0x80000000                      // on
    call headroom_lab_pci_write
    lea edx, [ebx + 18]                     // status: reset, acknowledge, driver
    xor eax, eax
    out dx, al
    mov al, 3
    out dx, al
    mov edx, ebx                            // features: none but, if asked, many queues
    in eax, dx
    movzx edi, byte ptr ds:[{QUEUE_PER_VCPU}]
    shl edi, 12
    and eax, edi
    lea edx, [ebx + 4]
    out dx, eax
    xor edi, edi                            // edi = queue
.Llab_queues:
    mov eax, dword ptr ds:[{DISKS}]         // eax = vCPU that drives it
    add eax, edi
    call headroom_lab_queue
    inc edi
    cmp byte ptr ds:[{QUEUE_PER_VCPU}], 1
    jne .Llab_queues_done
    cmp edi, dword ptr ds:[{VCPUS}]
    jb .Llab_queues
.Llab_queues_done:
    lea edx, [ebx + 18]                     // status: driver is ready
    mov al, 7
    out dx, al
.Llab_disk_unusable:
    pop edi
    ret

// ebx = IO ports, ecx = MSI-X table, edi = queue, eax = vCPU; keeps these
headroom_lab_queue:
    push ebp
    push ecx
    push esi
    mov esi, edi                            // MSI-X entry of the queue: vector 0x41
    shl esi, 4
    add esi, ecx
    mov ecx, eax
    shl ecx, 12
    or ecx, 0xfee00000
    mov dword ptr [esi], ecx
    mov dword ptr [esi + 4], 0
    mov dword ptr [esi + 8], 0x41
    mov dword ptr [esi + 12], 0
    mov ebp, eax
    imul ebp, ebp, {STATE_STEP}
    add ebp, {STATE}
    mov eax, edi
    lea edx, [ebx + 14]                     // select
    out dx, ax
    lea edx, [ebx + 12]                     // size: ours is laid out for 256
    in ax, dx
    cmp ax, 256
    jne .Llab_queue_done
    mov eax, ebp
    shr eax, 12
    lea edx, [ebx + 8]                      // page of the rings
    out dx, eax
    mov eax, edi
    lea edx, [ebx + 22]                     // MSI-X entry
    out dx, ax
    mov dword ptr [ebp + {QUEUE}], edi
    mov dword ptr [ebp + {SEED}], ebp
    xor ecx, ecx
.Llab_request:                              // three descriptors and a free slot each
    mov byte ptr [ebp + ecx + {FREE}], cl
    lea esi, [ecx + ecx * 2]
    lea eax, [esi + 1]
    shl esi, 4
    add esi, ebp
    mov edx, ecx
    shl edx, 4
    lea edx, [ebp + edx + {HEADERS}]
    mov dword ptr [esi], edx
    mov dword ptr [esi + 8], 16
    mov word ptr [esi + 12], 1              // another one follows
    mov word ptr [esi + 14], ax
    mov edx, ecx
    shl edx, 12
    lea edx, [ebp + edx + {DATA}]
    mov dword ptr [esi + 16], edx
    inc eax
    mov word ptr [esi + 30], ax
    lea edx, [ebp + ecx + {STATUS}]
    mov dword ptr [esi + 32], edx
    mov dword ptr [esi + 40], 1
    mov word ptr [esi + 44], 2              // the device writes it
    inc ecx
    cmp ecx, {SLOTS}
    jb .Llab_request
    mov dword ptr [ebp + {NFREE}], ecx
    lea eax, [ebx + 16]
    mov dword ptr [ebp + {NOTIFY}], eax
.Llab_queue_done:
    pop esi
    pop ecx
    pop ebp
    ret

// Takes what is complete and submits what is due.
headroom_lab_pump:
    cmp dword ptr [ebp + {NOTIFY}], 0
    je .Llab_pump_done
    call headroom_lab_complete
.Llab_pump:
    call headroom_lab_due
    test eax, eax
    jnz .Llab_pump_done
    mov eax, dword ptr ds:[{INTERVAL_US}]
    test eax, eax
    jz .Llab_submit
    // Held up for longer than half a second: what was due then is forgone.
    mov ebx, 1000
    mul dword ptr ds:[{TICKS_PER_MS}]
    div ebx
    mov edi, eax
    imul ecx, dword ptr ds:[{TICKS_PER_MS}], 500
    rdtsc
    push edx
    push eax
    sub eax, dword ptr [ebp + {NEXT}]
    sbb edx, dword ptr [ebp + {NEXT} + 4]
    jnz .Llab_resume
    cmp eax, ecx
    ja .Llab_resume
    add esp, 8
    jmp .Llab_schedule
.Llab_resume:
    pop dword ptr [ebp + {NEXT}]
    pop dword ptr [ebp + {NEXT} + 4]
.Llab_schedule:
    add dword ptr [ebp + {NEXT}], edi
    adc dword ptr [ebp + {NEXT} + 4], 0
.Llab_submit:
    call headroom_lab_submit
    jmp .Llab_pump
.Llab_pump_done:
    ret

// eax = ticks until the next request may go: 0 = now, all ones = not by itself
headroom_lab_due:
    cmp dword ptr [ebp + {NOTIFY}], 0
    je .Llab_due_never
    cmp byte ptr ds:[{DISK_ON}], 1
    jne .Llab_due_never
    mov eax, {SLOTS}
    sub eax, dword ptr [ebp + {NFREE}]
    cmp eax, dword ptr ds:[{DEPTH}]
    jae .Llab_due_never
    cmp dword ptr ds:[{INTERVAL_US}], 0
    je .Llab_due_now
    rdtsc
    mov ecx, edx
    mov edx, eax
    mov eax, dword ptr [ebp + {NEXT}]
    sub eax, edx
    mov edx, dword ptr [ebp + {NEXT} + 4]
    sbb edx, ecx
    js .Llab_due_now
    jnz .Llab_due_never
    ret
.Llab_due_now:
    xor eax, eax
    ret
.Llab_due_never:
    mov eax, -1
    ret

headroom_lab_submit:
    dec dword ptr [ebp + {NFREE}]
    mov ecx, dword ptr [ebp + {NFREE}]
    movzx ebx, byte ptr [ebp + ecx + {FREE}]
    imul eax, dword ptr [ebp + {SEED}], 1664525
    add eax, 1013904223
    mov dword ptr [ebp + {SEED}], eax
    mov edi, ebx
    shl edi, 4
    lea edi, [ebp + edi + {HEADERS}]
    mov ecx, eax                            // 4 KiB apart, anywhere on the disk
    shr ecx, 8
    shl ecx, 3
    and ecx, dword ptr ds:[{SPAN}]
    mov dword ptr [edi + 8], ecx
    mov edx, 100
    mul edx                                 // edx = even chance of 0..99
    movzx ecx, byte ptr ds:[{WRITES}]
    cmp edx, ecx
    sbb eax, eax
    neg eax                                 // 1 = write, 0 = read
    mov dword ptr [edi], eax
    add dword ptr [ebp + {WRITTEN}], eax
    lea ecx, [ebx + ebx * 2]
    mov edi, ecx
    shl edi, 4
    add edi, ebp
    shl eax, 1
    xor eax, 3                              // read: device writes; one follows
    mov word ptr [edi + 28], ax
    mov eax, dword ptr ds:[{SECTORS}]
    shl eax, 9
    mov dword ptr [edi + 24], eax
    mov byte ptr [ebp + ebx + {STATUS}], 0xff
    rdtsc
    mov dword ptr [ebp + ebx * 8 + {SENT}], eax
    mov dword ptr [ebp + ebx * 8 + {SENT} + 4], edx
    movzx eax, word ptr [ebp + {AVAIL} + 2]
    movzx edx, al
    mov word ptr [ebp + edx * 2 + {AVAIL} + 4], cx
    inc eax
    mov word ptr [ebp + {AVAIL} + 2], ax
    lock add dword ptr [esp], 0             // our index before its flag
    test word ptr [ebp + {USED}], 1         // the device polls: no kick wanted
    jnz .Llab_no_kick
    mov edx, dword ptr [ebp + {NOTIFY}]
    mov eax, dword ptr [ebp + {QUEUE}]
    out dx, ax
    inc dword ptr [ebp + {KICKS}]
.Llab_no_kick:
    ret

headroom_lab_complete:
    movzx ecx, word ptr [ebp + {SEEN}]
    cmp cx, word ptr [ebp + {USED} + 2]
    je .Llab_complete_done
    movzx ecx, cl
    mov eax, dword ptr [ebp + ecx * 8 + {USED} + 4]
    xor edx, edx
    mov ecx, 3
    div ecx
    mov ebx, eax
    cmp byte ptr [ebp + ebx + {STATUS}], 0
    je .Llab_good
    inc dword ptr [ebp + {ERRORS}]
.Llab_good:
    rdtsc
    sub eax, dword ptr [ebp + ebx * 8 + {SENT}]
    sbb edx, dword ptr [ebp + ebx * 8 + {SENT} + 4]
    lea ecx, [ebp + {DONE}]
    call headroom_lab_tally
    mov ecx, dword ptr [ebp + {NFREE}]
    mov byte ptr [ebp + ecx + {FREE}], bl
    inc dword ptr [ebp + {NFREE}]
    inc word ptr [ebp + {SEEN}]
    jmp headroom_lab_complete
.Llab_complete_done:
    ret

// Tables of the processor, in the ROM, with the accessed bits already set.
.balign 8
headroom_lab_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
headroom_lab_idt:
    .fill 0x40, 8, 0                        // an exception ends the guest
    .word headroom_lab_isr_timer - headroom_lab_begin, 8, 0x8e00, 0xf
    .word headroom_lab_isr_disk - headroom_lab_begin, 8, 0x8e00, 0xf
    .fill 13, 8, 0
    .word headroom_lab_isr_spurious - headroom_lab_begin, 8, 0x8e00, 0xf
headroom_lab_gdtr:
    .word 23
    .long headroom_lab_gdt - headroom_lab_begin + {ROM}
headroom_lab_idtr:
    .word 0x50 * 8 - 1
    .long headroom_lab_idt - headroom_lab_begin + {ROM}
headroom_lab_end:
.code64
.popsection

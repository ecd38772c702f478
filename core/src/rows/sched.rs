//! Who had the CPUs, and whom each VM waited for.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    BLAME "blame", BlameRow, sort ["vm_id", "ts"], "Time that one VM waited for a CPU while one culprit had it; the rows of a VM and window sum to its ready_ns.";
    ts: time Utc "end of the window";
    host: text None "host the VM runs on";
    vm_id: text None "the VM that waited";
    vm_name: text None "its name";
    window_ns: int Nanoseconds "length of the window";
    culprit_kind: text None "vm, self, host, kernel, interrupt, idle (the CPU idled until the wake-up reached it), unknown; throttle is apart: its time is not ready";
    culprit: text None "vm_id of another VM; name of the host's task behind most of host or kernel; else the kind";
    culprit_name: text None "name of that VM or task; else the kind";
    blame_ns: int Nanoseconds "run-queue latency of all vCPUs of the VM while this culprit had their CPUs; for throttle the throttled time";
    share: float Ratio "blame_ns / ready_ns of the VM; for throttle of ready_ns + throttled_ns";
}

table! {
    CPUS "cpus", CpuRow, sort ["host", "cpu", "ts"], "One CPU over one window: each ns belongs to one owner.";
    ts: time Utc "end of the window";
    host: text None "host name";
    cpu: int None "number of the CPU";
    window_ns: int Nanoseconds "length of the window";
    vcpu_ns: int Nanoseconds "vCPU threads, interrupts left out";
    iothread_ns: int Nanoseconds "iothreads of VMMs";
    vhost_ns: int Nanoseconds "vhost workers";
    emulator_ns: int Nanoseconds "other threads of VMMs";
    host_ns: int Nanoseconds "tasks of the host in user space, their system calls included";
    kernel_ns: int Nanoseconds "kernel threads";
    interrupt_ns: opt_int Nanoseconds "interrupts and soft interrupts; unavailable where they can't be told, and then part of the others";
    idle_ns: int Nanoseconds "idle";
    unknown_ns: int Nanoseconds "before the first switch that was seen";
    switches: int Count "context switches";
    missed_switches: opt_int Count "threads with a slot that a tick found running although the kernel had told of no switch to them";
    wakeups: int Count "wake-ups done from this CPU";
    interrupts: opt_int Count "interrupt handlers and soft interrupts run";
    depth: opt_float Count "mean run-queue depth: tasks waiting, the running one left out, sampled at each tick of the busy CPU";
}

table! {
    CPU_OWNERS "cpu_owners", CpuOwnerRow, sort ["host", "owner", "ts"], "Time of all CPUs of a host by owner; the rows of a window sum to its capacity.";
    ts: time Utc "end of the window";
    host: text None "host name";
    window_ns: int Nanoseconds "length of the window";
    owner: text None "vcpu, iothread, vhost, emulator, host, kernel, interrupt, idle or unknown";
    time_ns: int Nanoseconds "time of all CPUs";
    share: float Ratio "time_ns / capacity (window_ns * CPUs)";
}

table! {
    VM_CONCURRENCY "vm_concurrency", VmConcurrencyRow, sort ["vm_id", "ts"], "Time that so many vCPUs of a VM ran or were ready at once, sampled 21 times a second.";
    ts: time Utc "end of the window";
    host: text None "host the VM runs on";
    vm_id: text None "stable id of the VM";
    vm_name: text None "its name";
    vcpus: int Count "vCPUs of the VM";
    active: int Count "vCPUs that ran or were ready at once";
    time_ns: int Nanoseconds "time of the window in which it was so many";
}

table! {
    VCPU_MOVES "vcpu_moves", VcpuMovesRow, sort ["vm_id", "vcpu", "ts"], "Moves of one vCPU's thread in one window; only where there were any.";
    ts: time Utc "end of the window";
    host: text None "host the VM runs on";
    vm_id: text None "stable id of the VM";
    vm_name: text None "its name";
    vcpu: int None "number of the vCPU";
    cpu_migrations: int Count "switch-ins on another CPU than the last";
    node_migrations: opt_int Count "switch-ins on another NUMA node than the last; unavailable on a host with one node";
    balancer_moves: opt_int Count "moves and exchanges by the kernel's NUMA balancer; unavailable on a host with one node";
}

table! {
    PROBES "probes", ProbeRow, sort ["host", "family", "ts"], "How far each family of measurements works on a host.";
    ts: time Utc "end of the window";
    host: text None "host name";
    family: text None "sched, numa, irq, block, memory, ...";
    state: text None "attached, partial or unavailable";
    source: opt_text None "where its figures come from: tp_btf, raw_tp, cgroup, ...";
    reason: opt_text None "why it, or a part of it, is unavailable, and the remedy";
}

//! What takes CPU time from VMs: host tasks, and a hypervisor below the host.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    HOST_TASKS "host_tasks", HostTaskRow, sort ["host", "owner_kind", "owner", "ts"],
    "CPU time of host tasks that belong to no VM over one window: the 20 owners with most, and a row '(rest)' for each kind with more. VMMs and their vhost workers are in vms. A task that began and ended between two windows is in no row.";
    ts: time Utc "end of the window";
    host: text None "host name";
    owner_kind: text None "storage, network, management, agent, user or kernel";
    owner: text None "name: of a process, or of a family of kernel threads (kworker, ksoftirqd); (rest) for all others of the kind";
    window_ns: int Nanoseconds "length of the window";
    run_ns: int Nanoseconds "time on CPUs: of processes in steps of 10 ms, of kernel threads exact; interrupts are charged to whom they interrupt unless the kernel accounts them apart";
    processes: int Count "processes, or kernel threads, at the end of the window";
    threads: int Count "their threads";
}

table! {
    HOST_STEAL "host_steal", HostStealRow, sort ["host", "ts"],
    "Time that a hypervisor took from this host over one window, where the host is a VM itself.";
    ts: time Utc "end of the window";
    host: text None "host name";
    window_ns: int Nanoseconds "length of the window";
    threads: int Count "online CPU threads";
    steal_ns: opt_int Nanoseconds "steal of all CPUs, in steps of 10 ms; unavailable on bare metal and where the hypervisor does not tell";
    steal_ratio: opt_float Ratio "steal_ns / (window_ns * threads): per CPU thread";
    virtualised: int None "1 where the host is a VM itself, else 0";
    hypervisor: opt_text None "kvm, vmware, hyperv, xen, qemu (TCG) or the vendor's own mark";
    reason: opt_text None "why steal is unavailable";
}

table! {
    CPU_STEAL "cpu_steal", CpuStealRow, sort ["host", "cpu", "ts"],
    "Steal of one CPU over one window; rows only where the host is a VM and its hypervisor tells.";
    ts: time Utc "end of the window";
    host: text None "host name";
    cpu: int None "number of the CPU thread";
    window_ns: int Nanoseconds "length of the window";
    steal_ns: int Nanoseconds "steal, in steps of 10 ms";
}

//! Hosts, VMs, vCPUs and what happened to them.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    VCPUS "vcpus", VcpuRow, sort ["vm_id", "vcpu", "ts"], "One vCPU over one window.";
    ts: time Utc "end of the window";
    host: text None [key] "host the vCPU's thread lives on";
    vm_id: text None [key] "stable id of the VM: its UUID, else name and start time";
    vm_name: text None [last] "name of the VM as its platform gives it";
    vcpu: int None [key] "number of the vCPU within the VM";
    window_ns: int Nanoseconds [sum] "length of the window";
    run_ns: int Nanoseconds [sum] "time on a host CPU, a period still open included";
    ready_ns: int Nanoseconds [sum] "run-queue latency: runnable but not running, a wait still open included";
    ready_wake_ns: opt_int Nanoseconds [sum] "the part of ready_ns after wake-ups; unavailable from schedstat";
    ready_preempt_ns: opt_int Nanoseconds [sum] "the part of ready_ns after preemptions; unavailable from schedstat";
    throttled_ns: opt_int Nanoseconds [sum] "time stopped by a CPU quota; unavailable until a probe tells it apart";
    wait_ns: int Nanoseconds [sum] "neither running nor ready: the guest was idle or waited for something";
    ready_ratio: float Ratio [ready_ns / window_ns] "ready_ns / window_ns";
    ready_max_ns: opt_int Nanoseconds [max] "longest wait still open or ended in the window; unavailable where none is known";
    ready_hist: opt_hist Count [merge] "histogram of the waits that ended in the window; unavailable from schedstat";
    switches: opt_int Count [sum] "times switched in";
    cpu_migrations: opt_int Count [sum] "switch-ins on another CPU than the last";
    node_migrations: opt_int Count [sum] "switch-ins on another NUMA node than the last; unavailable on a host with one node";
    tid: int None "thread id of the vCPU on the host";
    source: text None [last] "tp_btf, raw_tp or schedstat: what measured the row";
}

table! {
    VMS "vms", VmRow, sort ["vm_id", "ts"], "One VM over one window; sums are over its vCPUs.";
    ts: time Utc "end of the window";
    host: text None [key] "host the VM runs on";
    vm_id: text None [key] "stable id of the VM: its UUID, else name and start time";
    vm_name: text None [last] "name of the VM as its platform gives it";
    vcpus: int Count [last] "number of vCPUs";
    window_ns: int Nanoseconds [sum] "length of the window";
    run_ns: int Nanoseconds [sum] "executed: time of all vCPUs on a CPU";
    ready_ns: int Nanoseconds [sum] "run-queue latency of all vCPUs";
    ready_wake_ns: opt_int Nanoseconds [sum] "the part of ready_ns after wake-ups";
    ready_preempt_ns: opt_int Nanoseconds [sum] "the part of ready_ns after preemptions";
    throttled_ns: opt_int Nanoseconds [sum] "time stopped by a CPU quota";
    wait_ns: int Nanoseconds [sum] "neither running nor ready, all vCPUs";
    ready_ratio: float Ratio [ready_ns / window_ns * vcpus] "ready_ns / (window_ns * vcpus): per vCPU, averaged over the VM";
    ready_max_ratio: float Ratio [max] "ready_ns / window_ns of the worst vCPU";
    ready_hist: opt_hist Count [merge] "histogram of the waits of all vCPUs";
    cpu_migrations: opt_int Count [sum] "CPU migrations of all vCPUs";
    node_migrations: opt_int Count [sum] "node migrations of all vCPUs; unavailable on a host with one node";
    iothread_run_ns: int Nanoseconds [sum] "time of its iothreads and vhost workers on a CPU";
    iothread_ready_ns: int Nanoseconds [sum] "run-queue latency of its iothreads and vhost workers";
    emulator_run_ns: int Nanoseconds [sum] "time of the other threads of its process on a CPU";
    emulator_ready_ns: int Nanoseconds [sum] "run-queue latency of the other threads";
    memory_bytes: opt_int Bytes [last] "memory given to the guest";
    tenant: opt_text None [last] "tenant, where the platform tells";
    project: opt_text None [last] "project, where the platform tells";
    vm_type: opt_text None [last] "flavour or machine type, where known";
    platform: text None [last] "libvirt, proxmox, openstack, kubevirt or qemu";
    pid: int None "process id of the VMM";
    source: text None [last] "tp_btf, raw_tp or schedstat: what measured the row";
}

table! {
    HOSTS "hosts", HostRow, sort ["host", "ts"], "One host over one window; totals are over all its tasks.";
    ts: time Utc "end of the window";
    host: text None [key] "host name";
    window_ns: int Nanoseconds [sum] "length of the window";
    threads: int Count [last] "online CPU threads";
    numa_nodes: int Count [last] "NUMA nodes";
    idle_ns: opt_int Nanoseconds [sum] "time of all CPUs in the idle task";
    busy_ns: opt_int Nanoseconds [sum] "time of all CPUs in any other task";
    switches: opt_int Count [sum] "context switches";
    wakeups: opt_int Count [sum] "wake-ups";
    vms: int Count [amount] "VMs seen";
    vcpus: int Count [amount] "vCPUs of these VMs";
    vm_run_ns: int Nanoseconds [sum] "executed by all vCPUs";
    vm_ready_ns: int Nanoseconds [sum] "run-queue latency of all vCPUs";
    psi_cpu_some_ns: opt_int Nanoseconds [sum] "time in which some task waited for a CPU (PSI)";
    memory_bytes: int Bytes [last] "memory of the host";
    memory_available_bytes: opt_int Bytes [min] "memory available without swapping";
    slots_used: opt_int Count "registered threads";
    unregistered: int Count [max] "VM threads measured by schedstat because no slot was free";
    clock_skews: opt_int Count [sum] "events dropped because their time stamps were out of order";
    spool_dropped_rows: int Count [max] "rows dropped by the agent because its spool was full, since the spool was made";
    kernel: text None [last] "kernel release";
    source: text None [last] "tp_btf, raw_tp or schedstat: what measured the row";
}

table! {
    EVENTS "events", EventRow, sort ["host", "ts"], "Something that happened.";
    ts: time Utc "when";
    host: text None "where";
    kind: text None "vm_started, vm_stopped, agent_started, agent_degraded, ...";
    subject: text None "what it happened to, as vm/ID or host/NAME";
    detail: text None "one sentence";
}

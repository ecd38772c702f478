//! Every series of VMs and hosts, declared once.

use super::How::{self, Hist, Last, Pressure, Seconds, Sum};
use super::Series;
use crate::exposition::{Metric, Type};
use crate::metric::Unit::{self, Bytes, Count, Ratio};

const VM: &[&str] = &["host", "vm_id", "vm_name", "tenant"];
const HOST: &[&str] = &["host"];

const fn series(
    name: &'static str,
    unit: Unit,
    from: (&'static str, &'static str, How),
    help: &'static str,
) -> Series {
    let (table, column, how) = from;
    let kind = match how {
        Seconds | Sum => Type::Counter,
        Last | Pressure => Type::Gauge,
        Hist(_) => Type::Histogram,
    };
    let metric = Metric {
        name,
        kind,
        unit,
        labels: HOST,
        help,
    };
    Series {
        metric,
        table,
        column,
        how,
    }
}

const fn vm(
    name: &'static str,
    unit: Unit,
    from: (&'static str, &'static str, How),
    help: &'static str,
) -> Series {
    let mut series = series(name, unit, from, help);
    series.metric.labels = VM;
    series
}

/// Series of a VM.
#[rustfmt::skip]
pub static VM_SERIES: &[Series] = &[
    vm("headroom_vm_run_seconds_total", Unit::Seconds, ("vms", "run_ns", Seconds), "Time of all vCPUs of the VM on a CPU."),
    vm("headroom_vm_ready_seconds_total", Unit::Seconds, ("vms", "ready_ns", Seconds), "Time that vCPUs of the VM could run but another task had their CPU."),
    vm("headroom_vm_wait_seconds_total", Unit::Seconds, ("vms", "wait_ns", Seconds), "Time that vCPUs of the VM neither ran nor were ready: idle, or waiting for something."),
    vm("headroom_vm_throttled_seconds_total", Unit::Seconds, ("vms", "throttled_ns", Seconds), "Time that vCPUs of the VM were stopped by a CPU quota."),
    vm("headroom_vm_runq_wait_seconds", Unit::Seconds, ("vms", "ready_hist", Hist("ready_ns")), "Waits of vCPUs for a CPU that ended; the sum is that of ready, waits still open included."),
    vm("headroom_vm_ready_worst_vcpu_ratio", Ratio, ("vms", "ready_max_ratio", Last), "Ready time of the worst vCPU over the last window."),
    vm("headroom_vm_iothread_run_seconds_total", Unit::Seconds, ("vms", "iothread_run_ns", Seconds), "Time of the iothreads and vhost workers of the VM on a CPU."),
    vm("headroom_vm_iothread_ready_seconds_total", Unit::Seconds, ("vms", "iothread_ready_ns", Seconds), "Time that they waited for a CPU."),
    vm("headroom_vm_emulator_run_seconds_total", Unit::Seconds, ("vms", "emulator_run_ns", Seconds), "Time of the other threads of the VM's process on a CPU."),
    vm("headroom_vm_cpu_migrations_total", Count, ("vms", "cpu_migrations", Sum), "Switch-ins of vCPUs on another CPU than the last."),
    vm("headroom_vm_vcpus", Count, ("vms", "vcpus", Last), "vCPUs of the VM."),
    vm("headroom_vm_memory_given_bytes", Bytes, ("vm_memory", "given_bytes", Last), "Memory given to the guest."),
    vm("headroom_vm_memory_resident_bytes", Bytes, ("vm_memory", "resident_bytes", Last), "Memory of the VM's process in RAM, the guest's and its own."),
    vm("headroom_vm_memory_swapped_bytes", Bytes, ("vm_memory", "swapped_bytes", Last), "Memory of the VM's process in swap."),
    vm("headroom_vm_device_read_bytes_total", Bytes, ("vm_io", "device_read_bytes", Sum), "Bytes that the VM's process read from disks."),
    vm("headroom_vm_device_written_bytes_total", Bytes, ("vm_io", "device_write_bytes", Sum), "Bytes that the VM's process wrote to disks."),
];

/// Series of a host.
#[rustfmt::skip]
pub static HOST_SERIES: &[Series] = &[
    series("headroom_node_pressure", Ratio, ("hosts", "vm_ready_ns", Pressure), "Share of the time of all vCPUs of the host that they were ready, 0 to 1, over the last window; 0 without vCPUs."),
    series("headroom_host_busy_seconds_total", Unit::Seconds, ("hosts", "busy_ns", Seconds), "Time of all CPUs in any task but idle."),
    series("headroom_host_idle_seconds_total", Unit::Seconds, ("hosts", "idle_ns", Seconds), "Time of all CPUs idle."),
    series("headroom_host_vm_run_seconds_total", Unit::Seconds, ("hosts", "vm_run_ns", Seconds), "Time of all vCPUs of the host on a CPU."),
    series("headroom_host_vm_ready_seconds_total", Unit::Seconds, ("hosts", "vm_ready_ns", Seconds), "Time that vCPUs of the host could run but another task had their CPU."),
    series("headroom_host_steal_seconds_total", Unit::Seconds, ("host_steal", "steal_ns", Seconds), "Time that a hypervisor took from the host, where the host is a VM itself."),
    series("headroom_host_context_switches_total", Count, ("hosts", "switches", Sum), "Context switches."),
    series("headroom_host_wakeups_total", Count, ("hosts", "wakeups", Sum), "Wake-ups of tasks."),
    series("headroom_host_cpu_threads", Count, ("hosts", "threads", Last), "Online CPU threads."),
    series("headroom_host_vms", Count, ("hosts", "vms", Last), "VMs seen."),
    series("headroom_host_vcpus", Count, ("hosts", "vcpus", Last), "vCPUs of these VMs."),
    series("headroom_host_memory_total_bytes", Bytes, ("host_memory", "total_bytes", Last), "Memory of the host."),
    series("headroom_host_memory_available_bytes", Bytes, ("host_memory", "available_bytes", Last), "Memory available without swapping."),
    series("headroom_host_swap_used_bytes", Bytes, ("host_memory", "swap_used_bytes", Last), "Swap in use."),
];

//! Where memory lies and where the vCPUs that use it run.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    VM_NUMA "vm_numa", VmNumaRow, sort ["vm_id", "ts"],
    "Remote memory of one VM over one window.";
    ts: time Utc "end of the window";
    host: text None [key] "host the VM runs on";
    vm_id: text None [key] "stable id of the VM";
    vm_name: text None [last] "name of the VM as its platform gives it";
    window_ns: int Nanoseconds [sum] "length of the window";
    nodes: int Count [last] "NUMA nodes of the host; with one, everything remote is unavailable, not 0";
    memory_bytes: opt_int Bytes [amount] "memory of the VM on all nodes, by the source";
    remote_bytes: opt_int Bytes [amount] "memory far from the vCPUs: each node's bytes times the part of vCPU time spent on other nodes. A guest that keeps to its own virtual nodes has less remote access than this";
    remote_share: opt_float Ratio "remote_bytes / memory_bytes";
    elsewhere_bytes: opt_int Bytes [amount] "memory on nodes where no vCPU ran in the window: remote whatever the guest does";
    vcpu_nodes: opt_int Count [max] "nodes on which vCPUs ran in the window";
    vcpu_time_ns: opt_int Nanoseconds [sum] "vCPU time that was charged to nodes, in steps of 10 ms";
    source: opt_text None [last] "cgroup (memory.numa_stat, and hugetlb's), numa_maps or node (host with one node)";
    age_ns: opt_int Nanoseconds "age of memory_bytes at the end of the window: up to 60 s for numa_maps";
    read_ns: opt_int Nanoseconds [max] "what reading the source took the last time";
    reason: opt_text None [last] "why a figure is unavailable";
}

table! {
    VM_NUMA_NODES "vm_numa_nodes", VmNumaNodeRow, sort ["vm_id", "node", "ts"],
    "One VM on one NUMA node over one window.";
    ts: time Utc "end of the window";
    host: text None "host the VM runs on";
    vm_id: text None "stable id of the VM";
    vm_name: text None "name of the VM as its platform gives it";
    node: int None "NUMA node of the host";
    window_ns: int Nanoseconds "length of the window";
    bytes: opt_int Bytes "memory of the VM on this node; source in vm_numa";
    vcpu_time_ns: opt_int Nanoseconds "time that vCPUs ran here, charged each second to the CPU where the vCPU ran last, in steps of 10 ms; unavailable on a host with one node";
    vcpu_share: opt_float Ratio "part of the VM's vCPU time spent on this node; where no vCPU ran, part of the samples";
}

table! {
    NODES "nodes", NodeRow, sort ["host", "node", "ts"],
    "One NUMA node of a host over one window, from numastat: where pages were allocated, in pages.";
    ts: time Utc "end of the window";
    host: text None "host name";
    node: int None "number of the node";
    window_ns: int Nanoseconds "length of the window";
    cpus: opt_int Count "online CPU threads of the node";
    memory_bytes: opt_int Bytes "memory of the node";
    memory_free_bytes: opt_int Bytes "free memory of the node";
    numa_hit: opt_int Count "pages allocated here as intended; unavailable on a host with one node, as are all below";
    numa_miss: opt_int Count "pages allocated here because the intended node was full";
    numa_foreign: opt_int Count "pages intended for here that went elsewhere";
    interleave_hit: opt_int Count "pages allocated here by an interleave policy";
    local_node: opt_int Count "pages allocated here by a process that ran here";
    other_node: opt_int Count "pages allocated here by a process that ran on another node";
}

table! {
    HOST_NUMA "host_numa", HostNumaRow, sort ["host", "ts"],
    "Automatic NUMA balancing of one host over one window (/proc/vmstat). All unavailable on a host with one node.";
    ts: time Utc "end of the window";
    host: text None "host name";
    window_ns: int Nanoseconds "length of the window";
    nodes: int Count "NUMA nodes";
    balancing: opt_text None "kernel.numa_balancing: off, on or tiering; unavailable where the kernel has none";
    hint_faults: opt_int Count "NUMA hint faults";
    hint_faults_local: opt_int Count "hint faults on memory of the node of the CPU";
    hint_faults_remote_share: opt_float Ratio "1 - hint_faults_local / hint_faults; unavailable without a hint fault";
    pages_migrated: opt_int Count "page migrations by NUMA balancing";
    pte_updates: opt_int Count "page table entries made to fault";
    migrate_success: opt_int Count "page migrations for any reason (compaction included) that succeeded";
    migrate_fail: opt_int Count "page migrations that failed";
    reason: opt_text None "why figures are unavailable";
}

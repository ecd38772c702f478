//! What there is: CPUs, NUMA nodes, and the VMs with whom they belong to.
//!
//! All three tables hold a row of each thing when it is first seen, when
//! anything about it changes, and every ten minutes. So the latest row tells
//! what is true now, and ten minutes (a little more, for the window) of
//! history always hold one of everything.
//!
//! Every row of any table that names a `vm_id` can be grouped by tenant,
//! project, VM type and region:
//!
//! ```sql
//! WITH who AS (
//!   SELECT vm_id, tenant, project, vm_type, region,
//!          row_number() OVER (PARTITION BY vm_id ORDER BY ts DESC) AS age
//!   FROM inventory
//! )
//! SELECT who.tenant, who.project, who.vm_type, who.region,
//!        count(DISTINCT v.vm_id)                           AS vms,
//!        sum(v.run_ns) / 1e9                               AS executed_s,
//!        CAST(sum(v.ready_ns) AS DOUBLE) / sum(v.window_ns) AS ready_ratio
//! FROM vcpus v
//! LEFT JOIN who ON who.vm_id = v.vm_id AND who.age = 1
//! WHERE v.ts > now() - INTERVAL '1 hour'
//! GROUP BY 1, 2, 3, 4
//! ORDER BY ready_ratio DESC
//! ```
//!
//! The capacity of hosts of several generations, with and without SMT, in one
//! unit:
//!
//! ```sql
//! WITH cpus AS (
//!   SELECT *, row_number() OVER (PARTITION BY host, cpu ORDER BY ts DESC) AS age
//!   FROM topology
//! )
//! SELECT host, min(generation) AS generation, count(*) AS threads,
//!        count(DISTINCT core) AS cores, sum(capacity) AS capacity
//! FROM cpus WHERE age = 1 AND online = 1 GROUP BY host
//! ```

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    TOPOLOGY "topology", TopologyRow, sort ["host", "cpu", "ts"], "One CPU thread of a host: at start, on change and every ten minutes.";
    ts: time Utc "end of the window";
    host: text None "host name";
    cpu: int None "number of the CPU thread";
    online: int None "1 when it is online, 0 when it is offline: then the rest is unavailable";
    socket: opt_int None "physical package";
    node: opt_int None "NUMA node; 0 on a host with one";
    core: opt_int None "the core, by the lowest number of its online threads: unique within the host";
    smt_siblings: opt_text None "online threads of the core, this one included, as 0,64";
    smt: opt_int Count "how many these are";
    l3: opt_int None "the L3 domain, by the lowest number of its CPUs; unavailable where the kernel names no L3";
    model: opt_text None "model name of the processor";
    generation: opt_text None "vendor, family, model and stepping as the kernel numbers them; on arm64 implementer, variant, part and revision";
    microcode: opt_text None "revision of the loaded microcode";
    mhz_max: opt_float None "highest frequency, MHz, boost included; unavailable without cpufreq, as in most VMs";
    mhz_base: opt_float None "guaranteed or nominal frequency, MHz";
    capacity: opt_float None "what the thread can do while its siblings are busy, in cores of 3000 MHz: see agent::topology::capacity; a prior, not a measurement";
    capacity_source: opt_text None "what went into capacity: smt, cpu_capacity, mhz_max, mhz_base, joined by +; without a mhz part the frequency is unknown and taken as 3000 MHz";
}

table! {
    TOPOLOGY_NODES "topology_nodes", TopologyNodeRow, sort ["host", "node", "ts"], "One NUMA node of a host: at start, on change and every ten minutes.";
    ts: time Utc "end of the window";
    host: text None "host name";
    node: int None "number of the NUMA node; 0 on a host with one";
    cpus: opt_text None "its online CPUs as a list such as 0-15,32-47; unavailable for a node of memory alone";
    memory_bytes: opt_int Bytes "memory of the node";
    distances: opt_text None "distance to each online node in order, 10 being local, as 10,21; unavailable without NUMA";
}

table! {
    INVENTORY "inventory", InventoryRow, sort ["vm_id", "ts"], "One VM: when first seen, when anything changes and every ten minutes.";
    ts: time Utc "end of the window";
    host: text None "host the VM runs on";
    vm_id: text None "stable id of the VM: its UUID, else name and start time";
    vm_name: text None "name of the VM as its platform gives it";
    platform: text None "libvirt, proxmox, openstack, kubevirt, qemu, firecracker, cloud-hypervisor or kvm";
    uuid: opt_text None "UUID given to the VM";
    pid: int None "process id of the VMM";
    vcpus: int Count "vCPU threads now";
    memory_bytes: opt_int Bytes "memory given to the guest at its start";
    machine: opt_text None "machine type, such as pc-q35-8.2";
    cgroup: opt_text None "control group of the VM, the part that libvirt adds for each thread cut off";
    pinning: opt_text None "CPUs that each vCPU may run on, as 0-3: 0-15; 4: 17 (vCPUs: CPUs)";
    numa_nodes_allowed: opt_text None "NUMA nodes that its first vCPU may take memory from, as 0-1";
    qos_class: opt_text None "guaranteed, burstable or besteffort from Kubernetes, or as labelled";
    tenant: opt_text None "tenant: label, OpenStack project or KubeVirt namespace";
    project: opt_text None "project: label or OpenStack project";
    vm_type: opt_text None "label or OpenStack flavour, else the machine type";
    region: opt_text None "region, from the labels file";
    priority: opt_text None "priority, from the labels file";
    labels: opt_text None "further labels as a JSON object of texts";
}

//! Queues of VMs and the threads that serve them.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    VM_QUEUES "vm_queues", VmQueueRow, sort ["vm_id", "tid", "ts"], "One backend thread that serves a VM's virtqueues, over one window.";
    ts: time Utc "end of the window";
    host: text None [key] "host the VM runs on";
    vm_id: text None [key] "stable id of the VM: its UUID, else name and start time";
    vm_name: text None [last] "name of the VM as its platform gives it";
    backend: text None [last] "name of the thread: the iothread's id, main loop, vhost-PID, ...";
    kind: text None [last] "iothread, vhost, main_loop or worker";
    tid: int None [key] "thread id of the backend on the host";
    window_ns: int Nanoseconds [sum] "time between the two readings of the thread";
    kicks: opt_int Count [sum] "writes to this backend's doorbells that went to an eventfd, from the first on that woke it; unavailable where KVM's tracepoints are not attached or the guest runs under TCG";
    polled: opt_int Count [sum] "the part of kicks that woke nobody: the backend polled, ran or was woken already";
    wakes: int Count [sum] "wake-ups of the backend by kicks; where KVM's tracepoints are not attached, by a vCPU of the VM for whatever reason";
    pickups: int Count [sum] "of these, how many were followed by a switch-in in the window";
    pickup_ns: int Nanoseconds [sum] "virtqueue delay: waking by a kick to the switch to the backend, sum of the pickups";
    pickup_max_ns: int Nanoseconds [max] "longest of them, one that is still open included";
    pending_ns: int Nanoseconds "age of a kick that woke the backend and is not picked up yet, at the window's end; 0 for none";
    pickup_hist: hist Count [merge] "histogram of the pickups";
    completions: int Count [sum] "switches to the backend after wake-ups by anything else: completions of I/O, worker threads, timers";
    completion_ns: int Nanoseconds [sum] "waking to switch, sum of these";
    completion_hist: hist Count [merge] "histogram of these";
    injects: opt_int Count [sum] "interrupts that the backend injected; unavailable where KVM's tracepoints are not attached or the guest runs under TCG, and not counted where a kernel worker injects";
    inject_wakes: opt_int Count [sum] "of these, how many woke a halted vCPU that was switched in within the window";
    inject_ns: opt_int Nanoseconds [sum] "injection to the switch to that vCPU, sum";
    inject_hist: opt_hist Count [merge] "histogram of these";
    source: text None [last] "tp_btf or raw_tp for the scheduler's part, with +kvm where KVM's tracepoints are attached";
}

//! Disks of the host: by VM, from the probes, and as a whole.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    VM_DISKS "vm_disks", VmDiskRow, sort ["vm_id", "device", "op", "ts"], "One kind of operation of one VM on one disk of the host over one window. Stacked disks (a loop or device-mapper disk and the one below) each count a request.";
    ts: time Utc "end of the window";
    host: text None [key] "host of the disk";
    vm_id: text None [key] "stable id of the VM; 'host' for all that belongs to no VM or could not be attributed";
    vm_name: text None [last] "name of the VM as its platform gives it; 'host' likewise";
    device: text None [key] "name of the disk on the host, such as vda; MAJOR:MINOR when it is gone";
    major_minor: text None [last] "its numbers, as MAJOR:MINOR; 0:0 for commands to no disk";
    op: text None [key] "read, write, flush, discard or other";
    window_ns: int Nanoseconds [sum] "length of the window";
    requests: int Count [sum] "requests completed";
    errors: int Count [sum] "of these, with an error";
    bytes: int Bytes [sum] "bytes asked by them";
    queue_ns: opt_int Nanoseconds [sum] "queue time (submitted to sent to the device) of the requests completed; unavailable where none of them tells";
    queue_hist: opt_hist Count [merge] "histogram of their queue times; a flush that shares another's has none";
    service_ns: int Nanoseconds [sum] "service time (sent to the device to completed) of the requests completed";
    service_hist: hist Count [merge] "histogram of their service times";
    await_ns: opt_float Nanoseconds "mean queue time plus mean service time; unavailable without requests or queue times";
    in_flight: opt_float Count [amount] "requests at the device, mean over the window; unavailable when the open ones could not be read";
    in_flight_now: opt_int Count "requests at the device at the end of the window";
    queued_now: opt_int Count "requests not yet at the device at the end of the window";
    oldest_ns: opt_int Nanoseconds [max] "age of the oldest request still open; unavailable without one";
    source: text None [last] "tp_btf or raw_tp: what measured the row";
}

table! {
    HOST_DISKS "host_disks", HostDiskRow, sort ["host", "device", "ts"], "One disk of the host over one window, by the kernel's own count.";
    ts: time Utc "end of the window";
    host: text None [key] "host of the disk";
    device: text None [key] "name of the disk, such as nvme0n1";
    major_minor: text None [last] "its numbers, as MAJOR:MINOR";
    window_ns: int Nanoseconds [sum] "length of the window";
    reads: int Count [sum] "reads completed";
    reads_merged: int Count [sum] "reads merged into others before they were sent";
    read_bytes: int Bytes [sum] "bytes read";
    read_ns: int Nanoseconds [sum] "time of all reads from submission to completion, in steps of a millisecond";
    writes: int Count [sum] "writes completed";
    writes_merged: int Count [sum] "writes merged into others";
    write_bytes: int Bytes [sum] "bytes written";
    write_ns: int Nanoseconds [sum] "time of all writes";
    discards: int Count [sum] "discards completed";
    discard_bytes: int Bytes [sum] "bytes discarded";
    discard_ns: int Nanoseconds [sum] "time of all discards";
    flushes: opt_int Count [sum] "flushes of the device's cache completed; unavailable before kernel 5.5";
    flush_ns: opt_int Nanoseconds [sum] "time of all flushes; unavailable before kernel 5.5";
    await_ns: opt_float Nanoseconds "mean time from submission to completion of reads, writes and discards; unavailable without any";
    in_flight: float Count [amount] "requests submitted and not completed, mean over the window";
    in_flight_now: int Count "the same at the end of the window";
    depth: opt_int Count [last] "limit of requests in the queue (nr_requests)";
    scheduler: opt_text None [last] "scheduler of the queue: none, mq-deadline, bfq, kyber";
    rotational: opt_int None [last] "1 for a disk that turns";
    write_cache: opt_text None [last] "write back or write through";
    size_bytes: opt_int Bytes [last] "size of the disk";
}

table! {
    BLOCK_DROPS "block_drops", BlockDropRow, sort ["host", "ts"], "What the block probes saw and could not put into vm_disks, and why.";
    ts: time Utc "end of the window";
    host: text None "host name";
    window_ns: int Nanoseconds "length of the window";
    open_full: int Count "requests not followed because the table of open ones was full";
    stats_full: int Count "requests not counted because the table of VMs and disks was full";
    unseen: int Count "completions of requests whose start was not seen, open_full included";
    vanished: int Count "requests that ended without a completion";
    merged: int Count "requests merged into others; their bytes are counted there";
    requeued: int Count "times that a device handed a request back to the queue";
    partial: int Count "completions of a part of a request";
    skipped: opt_int Count "events that no program saw because an interrupt came while the same program ran on that CPU; such a request is vanished or unseen too; unavailable where the kernel does not tell";
    clock_skews: int Count "times counted as 0 because the clocks of two CPUs differ";
    stale: opt_int Count "records of requests that seem to be open for over a second although the kernel has fewer at the device: their completion was not seen; left out of in_flight";
    open: opt_int Count "requests open at the end of the window; unavailable when they could not be read";
    open_capacity: int Count "requests that can be followed at once";
    pairs: int Count "VM, disk and operation in the table";
    pairs_capacity: int Count "the most that fit into it";
}

table! {
    VM_IO "vm_io", VmIoRow, sort ["vm_id", "ts"], "What the process of one VM asked of files and disks over one window, by the kernel's account of the process.";
    ts: time Utc "end of the window";
    host: text None "host the VM runs on";
    vm_id: text None "stable id of the VM";
    vm_name: text None "name of the VM as its platform gives it";
    window_ns: int Nanoseconds "length of the window";
    asked_read_bytes: opt_int Bytes "bytes returned by read calls, from disks, pipes and sockets alike; not those of io_uring and native AIO";
    asked_write_bytes: opt_int Bytes "bytes taken by write calls, likewise";
    device_read_bytes: opt_int Bytes "bytes that reached the block layer as reads";
    device_write_bytes: opt_int Bytes "bytes that reached or will reach it as writes, less those truncated before";
    cached_read_bytes: opt_int Bytes "asked_read_bytes - device_read_bytes: served by the page cache; unavailable where more was read ahead than asked for, or asked by io_uring or native AIO";
}

//! Block requests: one record each from start to completion, and sums by VM,
//! device and operation.

use crate::hist::BUCKETS;

/// Kinds of operations, `op` of the records.
pub mod op {
    /// Reads.
    pub const READ: u32 = 0;
    /// Writes, zone appends too.
    pub const WRITE: u32 = 1;
    /// Flushes of the device's cache.
    pub const FLUSH: u32 = 2;
    /// Discards, secure erases and writes of zeroes: no data is transferred.
    pub const DISCARD: u32 = 3;
    /// Zone management and commands passed through to the device.
    pub const OTHER: u32 = 4;
}

/// Stands for a time that is not known.
pub const UNKNOWN_NS: u64 = 0;

/// Offsets of kernel fields in bytes, frozen into the object's constants
/// before its programs are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockOffsets {
    /// Of `request.q`.
    pub rq_queue: u32,
    /// Of `request.cmd_flags`.
    pub rq_flags: u32,
    /// Of `request.__data_len`.
    pub rq_bytes: u32,
    /// Of `request.bio`.
    pub rq_bio: u32,
    /// Of `request.start_time_ns`.
    pub rq_start: u32,
    /// Of `request_queue.disk`.
    pub queue_disk: u32,
    /// Of `gendisk.major`.
    pub disk_major: u32,
    /// Of `gendisk.first_minor`.
    pub disk_minor: u32,
    /// Of `bio.bi_blkg`.
    pub bio_blkg: u32,
    /// Of `blkcg_gq.blkcg`.
    pub blkg_blkcg: u32,
    /// Of `blkcg.css.cgroup`.
    pub blkcg_cgroup: u32,
    /// Of `cgroup.kn`.
    pub cgroup_node: u32,
    /// Of `kernfs_node.id`.
    pub node_id: u32,
    /// 1 when the kernel accounts block I/O to cgroups, so that the five
    /// fields above exist.
    pub has_cgroups: u32,
    /// 1 when the kernel has `block_io_start` (6.5), where every request
    /// begins in the context of the task that submits it.
    pub has_io_start: u32,
    /// Keeps the size a multiple of eight.
    pub pad: u32,
}

/// Key of [`OpenRequest`]: address of the kernel's `struct request`.
pub type RequestKey = u64;

/// A request between its start and its completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct OpenRequest {
    /// When it was submitted, ns of `CLOCK_MONOTONIC`; [`UNKNOWN_NS`] when the
    /// first that was seen of it is that it went to the device.
    pub start_ns: u64,
    /// When it went to the device, 0 while it is queued.
    pub issue_ns: u64,
    /// Whose it is.
    pub key: DiskKey,
    /// Bytes asked of the device.
    pub bytes: u32,
}

/// Whose requests, of which device and kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct DiskKey {
    /// Number of the VM; 0 for the host and whatever could not be attributed.
    pub vm: u32,
    /// Device: major << 20 | minor; 0 where a request has no disk.
    pub device: u32,
    /// One of [`op`].
    pub op: u32,
}

/// Sums over the completed requests of one [`DiskKey`]; cumulative, never reset
/// while the key exists. Times are ns. Several CPUs complete at once, so every
/// field is added to atomically and a reader may see one request in some fields
/// and not yet in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DiskStats {
    /// Requests completed.
    pub requests: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Bytes asked by them.
    pub bytes: u64,
    /// Queue time, over the requests of which it is known.
    pub queue_ns: u64,
    /// Service time.
    pub service_ns: u64,
    /// Queue time of each request, by [`crate::hist`].
    pub queue_hist: [u64; BUCKETS],
    /// Service time of each request, by [`crate::hist`].
    pub service_hist: [u64; BUCKETS],
}

impl DiskStats {
    /// Nothing seen.
    pub const ZERO: Self = Self {
        requests: 0,
        errors: 0,
        bytes: 0,
        queue_ns: 0,
        service_ns: 0,
        queue_hist: [0; BUCKETS],
        service_hist: [0; BUCKETS],
    };
}

/// What the programs could not count, and why; cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BlockDrops {
    /// Requests not followed because the table of open ones was full.
    pub open_full: u64,
    /// Completed requests not counted because the table of sums was full.
    pub stats_full: u64,
    /// Completions of requests whose start was not seen: begun before the
    /// programs were attached, or one of `open_full`.
    pub unseen: u64,
    /// Records of requests that vanished without a completion, found when the
    /// kernel used their memory for the next request.
    pub vanished: u64,
    /// Requests merged into another one: no loss, their bytes are counted there.
    pub merged: u64,
    /// Requests that the device handed back to the queue.
    pub requeued: u64,
    /// Completions of a part of a request; the last one counts.
    pub partial: u64,
    /// Times whose end was stamped before their start, counted as 0.
    pub clock_skews: u64,
}

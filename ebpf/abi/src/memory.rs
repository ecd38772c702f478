//! Stalls for want of memory: one record a VM, and one for the host.

use crate::hist::BUCKETS;

/// Quiet time that ends an episode of reclaim, compaction or swapping, ns.
pub const EPISODE_NS: u64 = 10_000_000_000;

/// OOM kills kept; a power of two. User space reads them once a second.
pub const KILLS_LEN: u32 = 64;

/// Something that goes on for some time, with pauses below [`EPISODE_NS`].
/// Times are of `CLOCK_MONOTONIC`, ns; 0 before the first.
///
/// Several CPUs may write at once without a lock: the beginning is that of one
/// of them, µs apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Episode {
    /// Signs of it so far, added atomically.
    pub signs: u64,
    /// When the latest episode began.
    pub since_ns: u64,
    /// Its latest sign.
    pub last_ns: u64,
}

/// Stalls of one kind that ended, added atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Stalls {
    /// Their beginnings.
    pub began: Episode,
    /// Their sum, ns.
    pub ns: u64,
    /// Their lengths, by [`crate::hist`].
    pub hist: [u64; BUCKETS],
}

/// What the tasks of a VM, or of the host, suffered. Element 0 is the host: all
/// tasks in user space, those of VMs included; the others are VMs by number.
/// All counters are cumulative and never reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct MemoryStats {
    /// Direct reclaim, of the host's memory or at a cgroup's limit.
    pub reclaim: Stalls,
    /// Direct compaction, one a zone.
    pub compaction: Stalls,
    /// Pages written by reclaim on behalf of these tasks, mostly to swap.
    pub written: Episode,
    /// Reclaim and compaction by kernel threads, ns; in element 0 only.
    pub background_ns: u64,
    /// Stalls not measured because too many were open; in element 0 only.
    pub lost: u64,
    /// OOM kills so far; in element 0 only. Number `n` lies at
    /// `n % KILLS_LEN` of the kills.
    pub kills: u64,
}

/// A process chosen to be killed for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct OomKill {
    /// When, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// Which process.
    pub pid: u32,
    /// Whose, see [`crate::tag`]; 0 for one that is no VM's.
    pub tag: u32,
}

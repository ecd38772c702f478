//! Drops of tap queues.

/// One transmit queue of a network device: key of the map of drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct NetQueue {
    /// Inode number of the device's network namespace: an index alone names a
    /// device only within its namespace.
    pub netns: u32,
    /// Index of the device.
    pub ifindex: u32,
    /// Number of the queue, from 0.
    pub queue: u32,
    /// Always 0.
    pub pad: u32,
}

/// Queues that can have drops at the same time: 24 bytes each, and some 56 of
/// the kernel's.
pub const NET_QUEUES: u32 = 4096;

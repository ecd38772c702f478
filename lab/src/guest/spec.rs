//! What a guest shall be.

use std::time::Duration;

use clap::ValueEnum;

/// Sectors of a lab disk: 64 MiB of 512 bytes. A power of two, which the
/// payload wants.
pub const DISK_SECTORS: u32 = 128 * 1024;
/// Memory of the payload itself, MiB; what a guest has above is dirtied.
pub const OWN_MIB: u32 = 16;

/// What a guest shall be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name given to QEMU.
    pub name: String,
    /// vCPUs, 1..=16.
    pub vcpus: u32,
    /// Busy share of each vCPU, percent.
    pub load: u8,
    /// Memory in MiB, 16 at least. All above 16 is private anonymous memory of
    /// its QEMU, as usual guests have.
    pub memory_mib: u32,
    /// Its disk, if it has one.
    pub disk: Option<Disk>,
}

impl Spec {
    /// An idle guest with one vCPU, 16 MiB and no disk.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            vcpus: 1,
            load: 0,
            memory_mib: OWN_MIB,
            disk: None,
        }
    }

    /// Number of virtio-blk devices.
    #[must_use]
    pub fn disks(&self) -> u32 {
        match &self.disk {
            None => 0,
            Some(disk) if disk.layout == Layout::DiskPerVcpu => self.vcpus,
            Some(_) => 1,
        }
    }
}

/// A virtio-blk disk and what the guest does to it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Where its data is.
    pub backing: Backing,
    /// Whether a thread of its own serves it, else QEMU's main loop.
    pub iothread: bool,
    /// How long the iothread polls before it sleeps. A polling iothread takes
    /// requests before it was woken: with QEMU's usual 32 µs half of them.
    pub poll: Duration,
    /// How many queues and disks there are.
    pub layout: Layout,
    /// Share of writes, percent.
    pub writes: u8,
    /// Requests a second of each queue, 2 at least; 0 is as many as the depth
    /// allows.
    pub iops: u32,
    /// Requests in flight at most of each queue, 1..=64.
    pub depth: u32,
    /// Sectors of 512 bytes a request, 1..=8.
    pub sectors: u32,
}

impl Disk {
    /// One queue, served by an iothread that does not poll, read in 4 KiB at
    /// that rate with one request in flight.
    #[must_use]
    pub const fn new(backing: Backing, iops: u32) -> Self {
        Self {
            backing,
            iothread: true,
            poll: Duration::ZERO,
            layout: Layout::OneQueue,
            writes: 0,
            iops,
            depth: 1,
            sectors: 8,
        }
    }
}

/// Where a disk's data is.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Nowhere; each request takes that long.
    Null {
        /// From its start in the backend to its end.
        latency: Duration,
    },
    /// A sparse file.
    File {
        /// How QEMU reads and writes it.
        aio: Aio,
        /// What the host's page cache does with it.
        cache: Cache,
    },
}

/// How QEMU does asynchronous IO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Aio {
    /// `io_uring`
    #[default]
    IoUring,
    /// Linux AIO; needs a cache mode that bypasses the page cache
    Native,
    /// A pool of threads
    Threads,
}

/// QEMU's cache modes, by their usual names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Cache {
    /// Bypasses the page cache
    #[default]
    None,
    /// Through the page cache
    Writeback,
    /// Through the page cache, each write flushed
    Writethrough,
    /// Bypasses the page cache, each write flushed
    Directsync,
    /// Through the page cache, never flushed
    Unsafe,
}

impl Cache {
    /// Whether the page cache is bypassed.
    #[must_use]
    pub const fn direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Whether the guest is told of a write-back cache.
    #[must_use]
    pub const fn write_cache(self) -> bool {
        !matches!(self, Self::Writethrough | Self::Directsync)
    }
}

/// How many queues and disks a guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// One disk with one queue, driven by the first vCPU.
    #[default]
    OneQueue,
    /// One disk with a queue for each vCPU, all served by one iothread.
    QueuePerVcpu,
    /// One disk for each vCPU, each with an iothread of its own.
    DiskPerVcpu,
}

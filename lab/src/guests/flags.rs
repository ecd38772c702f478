//! What `headroom lab guests` lets its guests do besides spinning.

use std::time::Duration;

use clap::Args;

use crate::guest::spec::{Aio, Backing, Cache, OWN_MIB};
use crate::guest::{Disk, Guest};
use crate::terminal::duration;

/// Flags about the guests' disks.
#[derive(Args, Clone, Debug)]
pub struct DiskFlags {
    /// Each guest also uses a virtio disk of 64 MiB, a file in the temporary
    /// directory
    #[arg(long)]
    pub io: bool,
    /// Requests of 4 KiB a second; 0 is as many as the depth allows
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    iops: u32,
    /// Requests in flight at most
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    depth: u32,
    /// Share of writes in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    writes: u8,
    /// Instead of a file a disk that takes this long for each request
    #[arg(long, value_parser = duration)]
    disk_latency: Option<Duration>,
    /// How QEMU reads and writes the file
    #[arg(long, value_enum, default_value_t = Aio::Threads)]
    aio: Aio,
    /// What the host's page cache does with the file
    #[arg(long, value_enum, default_value_t = Cache::Writeback)]
    cache: Cache,
    /// Let QEMU's main loop serve the disk, not an iothread
    #[arg(long)]
    main_loop: bool,
    /// How long an iothread polls before it sleeps (QEMU's own default: 32768ns)
    #[arg(long, default_value = "0s", value_parser = duration)]
    poll: Duration,
}

impl DiskFlags {
    /// The disk asked for, if any.
    pub fn disk(&self) -> Option<Disk> {
        let backing = match self.disk_latency {
            Some(latency) => Backing::Null { latency },
            None => Backing::File {
                aio: self.aio,
                cache: self.cache,
            },
        };
        self.io.then(|| Disk {
            iothread: !self.main_loop,
            poll: self.poll,
            writes: self.writes,
            depth: self.depth,
            ..Disk::new(backing, self.iops)
        })
    }
}

/// Flags about the guests' memory.
#[derive(Args, Clone, Debug)]
pub struct MemoryFlags {
    /// Memory of each guest in MiB
    #[arg(long, default_value_t = OWN_MIB, value_parser = clap::value_parser!(u32).range(i64::from(OWN_MIB)..=2048))]
    memory_mib: u32,
    /// Each guest dirties its memory above 16 MiB once in this time
    #[arg(long, value_parser = duration)]
    dirty_every: Option<Duration>,
}

impl MemoryFlags {
    /// Memory of each guest, MiB.
    pub const fn mib(&self) -> u32 {
        self.memory_mib
    }

    /// Sets the guest to work.
    pub fn apply(&self, guest: &Guest) -> anyhow::Result<()> {
        let Some(every) = self.dirty_every else {
            return Ok(());
        };
        let mib = self.memory_mib - OWN_MIB;
        let pages = u128::from(mib) * 256 * 1000 / every.as_millis().max(1);
        guest
            .memory()
            .set_touch(mib, u32::try_from(pages.max(1)).unwrap_or(u32::MAX))
    }
}

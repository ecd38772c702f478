//! The block family's side of the maps: sums, open requests, whose cgroups.

mod offsets;

use std::collections::BTreeMap;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use headroom_abi::block::{BlockDrops, BlockOffsets, DiskKey, DiskStats, OpenRequest, RequestKey};

pub(super) use offsets::find as offsets;

use crate::clock::monotonic_ns;
use crate::probe::error::ProbeError;
use crate::probe::family::Skips;

/// Requests that can be open at once: the largest NVMe disks have 64 queues of
/// 1024, but no host was seen to keep more than some hundred requests open a
/// disk. 1.3 MB.
pub const MAX_OPEN: u32 = 16_384;

/// Triples of VM, disk and operation: three operations on 1.3 disks of each of
/// 1023 VMs. 7 MB.
pub const MAX_PAIRS: u32 = 4096;

/// Cgroups: up to four levels belong to one VM.
pub const MAX_CGROUPS: u32 = 4096;

/// Names of the maps and their elements on this host.
pub(super) const SIZES: [(&str, u32); 3] = [
    ("OPEN_REQUESTS", MAX_OPEN),
    ("DISK_STATS", MAX_PAIRS),
    ("VM_CGROUPS", MAX_CGROUPS),
];

/// Memory of the maps, bytes; the kernel's own share of an element of a hash is
/// 48 bytes.
pub(super) const MAP_BYTES: u64 = MAX_OPEN as u64 * (48 + 8 + size_of::<OpenRequest>() as u64)
    + MAX_PAIRS as u64 * (48 + 16 + size_of::<DiskStats>() as u64)
    + MAX_CGROUPS as u64 * (48 + 16)
    + size_of::<BlockDrops>() as u64
    + size_of::<DiskStats>() as u64;

macro_rules! pod {
    ($($(#[$doc:meta])* $name:ident($of:ty);)+) => {
        $($(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(super) struct $name(pub $of);
        // SAFETY: `repr(C)` integers without padding; any bytes are valid.
        unsafe impl Pod for $name {})+
    };
}

pod! {
    /// The object's constant.
    Offsets(BlockOffsets);
    /// Key of the sums.
    Key(DiskKey);
    /// The sums.
    Stats(DiskStats);
    /// An open request.
    Open(OpenRequest);
    /// What was dropped.
    Drops(BlockDrops);
}

/// Everything the programs have counted so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockReading {
    /// When, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Sums of the completed requests.
    pub stats: BTreeMap<DiskKey, DiskStats>,
    /// Open requests; `None` when they change faster than they can be read.
    pub open: Option<Vec<OpenRequest>>,
    /// What could not be counted.
    pub drops: BlockDrops,
    /// Events that no program saw, because an interrupt came while the same
    /// program ran on that CPU; `None` where the kernel does not tell.
    pub skipped: Option<u64>,
}

/// What the sampler asks of the probes; tests put something else in their
/// place.
pub trait BlockSource: Send {
    /// `tp_btf` or `raw_tp`.
    fn name(&self) -> &'static str;

    /// All figures now.
    ///
    /// # Errors
    /// A map refused; never seen once the family is attached.
    fn read(&self) -> Result<BlockReading, ProbeError>;

    /// From now on requests of a cgroup (its id, the inode number of its
    /// directory) are that VM's; of none with `None`.
    ///
    /// # Errors
    /// The table is full, or refused.
    fn set_cgroup(&mut self, id: u64, vm: Option<u16>) -> Result<(), ProbeError>;

    /// Removes the sums of a VM number, for the next VM that gets it.
    ///
    /// # Errors
    /// The map refused.
    fn forget(&mut self, vm: u16) -> Result<(), ProbeError>;
}

/// The attached family. Reading and writing go through open files, which needs
/// no capability: since 5.19 `kernel.unprivileged_bpf_disabled` stops a process
/// without `CAP_BPF` from making maps and programs only, before that nothing
/// but its own programs (kernel/bpf/syscall.c, `__sys_bpf`).
pub struct BlockProbes {
    source: &'static str,
    skips: Skips,
    open: HashMap<MapData, RequestKey, Open>,
    stats: HashMap<MapData, Key, Stats>,
    cgroups: HashMap<MapData, u64, u32>,
    drops: Array<MapData, Drops>,
}

impl BlockProbes {
    /// Takes over the family's maps; `take` hands one out by its name.
    pub(super) fn new(
        source: &'static str,
        skips: Skips,
        mut take: impl FnMut(&'static str) -> Result<Map, ProbeError>,
    ) -> Result<Self, ProbeError> {
        let opened = |source| ProbeError::Map {
            operation: "opening",
            source,
        };
        Ok(Self {
            source,
            skips,
            open: HashMap::try_from(take("OPEN_REQUESTS")?).map_err(opened)?,
            stats: HashMap::try_from(take("DISK_STATS")?).map_err(opened)?,
            cgroups: HashMap::try_from(take("VM_CGROUPS")?).map_err(opened)?,
            drops: Array::try_from(take("BLOCK_DROPS")?).map_err(opened)?,
        })
    }

    /// The open requests by address. An element that vanishes between two
    /// steps makes the kernel begin anew, so each is kept once and the steps
    /// are bounded.
    fn open_requests(&self) -> Result<Option<Vec<OpenRequest>>, MapError> {
        let limit = 4 * MAX_OPEN as usize;
        let mut found = BTreeMap::new();
        for (step, key) in self.open.keys().enumerate() {
            if step == limit {
                return Ok(None);
            }
            let key = key?;
            match self.open.get(&key, 0) {
                Ok(open) => found.insert(key, open.0),
                // Completed in the meantime.
                Err(MapError::KeyNotFound) => found.remove(&key),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(found.into_values().collect()))
    }

    fn all_stats(&self) -> Result<BTreeMap<DiskKey, DiskStats>, MapError> {
        // Only this process removes elements, so the walk is complete.
        self.stats
            .iter()
            .map(|element| element.map(|(key, stats)| (key.0, stats.0)))
            .collect()
    }
}

impl BlockSource for BlockProbes {
    fn name(&self) -> &'static str {
        self.source
    }

    fn read(&self) -> Result<BlockReading, ProbeError> {
        let failed = |source| ProbeError::Map {
            operation: "reading",
            source,
        };
        // The open ones first: one that ends in between counts as open for
        // some µs too long, and not as vanished.
        let open = self.open_requests().map_err(failed)?;
        let at_ns = monotonic_ns();
        Ok(BlockReading {
            at_ns,
            stats: self.all_stats().map_err(failed)?,
            open,
            drops: self.drops.get(&0, 0).map_err(failed)?.0,
            skipped: self.skips.total(),
        })
    }

    fn set_cgroup(&mut self, id: u64, vm: Option<u16>) -> Result<(), ProbeError> {
        let done = match vm {
            Some(vm) => self.cgroups.insert(id, u32::from(vm), 0),
            None => match self.cgroups.remove(&id) {
                Err(MapError::KeyNotFound) => Ok(()),
                other => other,
            },
        };
        done.map_err(|source| ProbeError::Map {
            operation: "naming a VM's cgroup in",
            source,
        })
    }

    fn forget(&mut self, vm: u16) -> Result<(), ProbeError> {
        let failed = |source| ProbeError::Map {
            operation: "clearing a VM from",
            source,
        };
        // Removing while walking would begin the walk anew.
        let keys: Result<Vec<Key>, _> = self.stats.keys().collect();
        for key in keys.map_err(failed)? {
            if key.0.vm == u32::from(vm) {
                match self.stats.remove(&key) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(source) => return Err(failed(source)),
                }
            }
        }
        Ok(())
    }
}

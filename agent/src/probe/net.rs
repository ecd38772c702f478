//! Drops of tap queues, counted in the kernel: the reader's side.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use aya::maps::{Array, HashMap as BpfHash, MapData};
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use headroom_abi::net::{NET_QUEUES, NetQueue};

use crate::probe::AttachPolicy;
use crate::probe::btf::NetOffsets;
use crate::probe::error::ProbeError;
use crate::probe::family::{Attached, NET_QUEUES as FAMILY};

/// Memory of the maps, bytes; the kernel's own share of an element is 56.
pub(super) const MAP_BYTES: u64 = NET_QUEUES as u64 * (56 + size_of::<NetQueue>() as u64 + 8) + 8;

/// A key of the kernel's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(NetQueue);

// SAFETY: `repr(C)` integers without padding; any bytes are valid.
unsafe impl Pod for Key {}

/// What the attached program counts, as long as the [`super::Probes`] live that
/// it comes from. Works on after the process gave up its capabilities.
pub struct NetDrops {
    source: &'static str,
    /// Inode number of the network namespace that this process is in.
    netns: u32,
    drops: BpfHash<MapData, Key, u64>,
    lost: Array<MapData, u64>,
    complained: bool,
}

impl NetDrops {
    fn new(source: &'static str, ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let mut take = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| ProbeError::MissingPart {
                what: format!("map {name}"),
            })
        };
        let opened = |source| ProbeError::Map {
            operation: "opening",
            source,
        };
        Ok(Self {
            source,
            netns: own_netns()?,
            drops: BpfHash::try_from(take("NET_DROPS")?).map_err(opened)?,
            lost: Array::try_from(take("NET_LOST")?).map_err(opened)?,
            complained: false,
        })
    }

    /// `tp_btf` or `raw_tp`.
    #[must_use]
    pub const fn source(&self) -> &'static str {
        self.source
    }

    /// Drops since the program was attached, by device index and queue, of
    /// devices in this process's network namespace; those that are not
    /// `present` give their place back. Two system calls for each queue that
    /// ever dropped.
    #[must_use]
    pub fn read(&mut self, present: impl Fn(u32) -> bool) -> HashMap<(u32, u32), u64> {
        let (mut drops, mut gone) = (HashMap::new(), Vec::new());
        for entry in self.drops.iter() {
            match entry {
                Ok((Key(queue), count)) if queue.netns == self.netns && present(queue.ifindex) => {
                    drops.insert((queue.ifindex, queue.queue), count);
                }
                Ok((key, _)) => gone.push(key),
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "drops of queues can't be read");
                    }
                    break;
                }
            }
        }
        for key in gone {
            // One that is gone already needs no place.
            let _ = self.drops.remove(&key);
        }
        drops
    }

    /// Drops that no queue is charged with, because the table was full.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        self.lost.get(&0, 0).ok()
    }
}

/// Freezes the offsets into the object's constants.
pub(super) fn set<'a>(loader: &mut EbpfLoader<'a>, offsets: &'a NetOffsets) {
    loader
        .override_global("REASON_FULL_RING", &offsets.full_ring, true)
        .override_global("SKB_DEV_OFFSET", &offsets.skb_dev, true)
        .override_global("SKB_QUEUE_OFFSET", &offsets.skb_queue, true)
        .override_global("DEV_IFINDEX_OFFSET", &offsets.dev_ifindex, true)
        .override_global("DEV_NET_OFFSET", &offsets.dev_net, true)
        .override_global("NET_INUM_OFFSET", &offsets.net_inum, true);
}

/// Attaches the program and opens its maps; the agent can do without.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    policy: AttachPolicy,
    offsets: &Result<NetOffsets, String>,
    btf: &Btf,
) -> (Option<NetDrops>, Attached) {
    if let Err(problem) = offsets {
        let reason = format!("kernel BTF: {problem}");
        return (None, Attached::left_out(&FAMILY, &reason));
    }
    let attached = FAMILY.attach(ebpf, policy, btf).and_then(|kind| {
        let drops = NetDrops::new(kind.name(), ebpf)?;
        Ok((kind, drops))
    });
    match attached {
        Ok((kind, drops)) => (Some(drops), Attached::of(&FAMILY, Ok(kind))),
        Err(error) => (None, Attached::of(&FAMILY, Err(error))),
    }
}

/// The namespace of the calling thread: index and name of a device are of one.
fn own_netns() -> Result<u32, ProbeError> {
    const PATH: &str = "/proc/thread-self/ns/net";
    let inode = std::fs::metadata(PATH).map(|m| m.ino());
    inode
        .and_then(|ino| u32::try_from(ino).map_err(std::io::Error::other))
        .map_err(|source| ProbeError::Topology {
            path: PATH.to_owned(),
            source,
        })
}

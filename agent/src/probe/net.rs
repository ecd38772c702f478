//! Drops of tap queues, counted in the kernel.
//!
//! An object of its own beside the scheduler's: it loads and fails alone.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use aya::maps::{Array, HashMap as BpfHash, MapData};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader, Endianness, Pod};
use headroom_abi::net::NetQueue;

use crate::probe::error::ProbeError;
use crate::probe::{AttachPolicy, btf, caps, object};

const HOOK: &str = "kfree_skb";
const TP_BTF: &str = "tp_btf";
const RAW_TP: &str = "raw_tp";

/// A key of the kernel's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(NetQueue);

// SAFETY: `repr(C)` integers without padding; any bytes are valid.
unsafe impl Pod for Key {}

/// The attached program and its maps; detached when dropped. Works on after
/// the process gave up its capabilities.
pub struct NetDrops {
    source: &'static str,
    /// Inode number of the network namespace that this process is in.
    netns: u32,
    drops: BpfHash<MapData, Key, u64>,
    lost: Array<MapData, u64>,
    complained: bool,
    _program: Ebpf,
}

impl NetDrops {
    /// Loads and attaches the program by the policy.
    ///
    /// # Errors
    /// What is missing or what the kernel refused.
    pub fn attach(policy: AttachPolicy) -> Result<Self, ProbeError> {
        if policy == AttachPolicy::Off {
            return Err(ProbeError::Disabled);
        }
        let bytes = object::embedded();
        object::check(bytes).map_err(|source| ProbeError::Object { source })?;
        if let Some(missing) = caps::missing() {
            return Err(ProbeError::MissingCapability { missing });
        }
        let offsets = btf::net_offsets()?;
        let btf = Btf::parse_file(btf::PATH, Endianness::default())
            .map_err(|source| ProbeError::ParseBtf { source })?;
        let netns = own_netns()?;
        let as_kind = |kind| attach(bytes, &btf, offsets, netns, kind);
        match policy {
            AttachPolicy::RawTp => as_kind(RAW_TP),
            AttachPolicy::TpBtf => as_kind(TP_BTF),
            AttachPolicy::Auto | AttachPolicy::Off => as_kind(TP_BTF).or_else(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "tp_btf kfree_skb refused, trying a raw tracepoint");
                as_kind(RAW_TP)
            }),
        }
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

fn attach(
    bytes: &[u8],
    btf: &Btf,
    offsets: btf::NetOffsets,
    netns: u32,
    source: &'static str,
) -> Result<NetDrops, ProbeError> {
    let mut ebpf = EbpfLoader::new()
        .btf(Some(btf))
        .override_global("REASON_FULL_RING", &offsets.full_ring, true)
        .override_global("SKB_DEV_OFFSET", &offsets.skb_dev, true)
        .override_global("SKB_QUEUE_OFFSET", &offsets.skb_queue, true)
        .override_global("DEV_IFINDEX_OFFSET", &offsets.dev_ifindex, true)
        .override_global("DEV_NET_OFFSET", &offsets.dev_net, true)
        .override_global("NET_INUM_OFFSET", &offsets.net_inum, true)
        .load(bytes)
        .map_err(|source| ProbeError::Load { source })?;
    start(&mut ebpf, btf, source)?;
    let map = |ebpf: &mut Ebpf, name: &str| {
        ebpf.take_map(name).ok_or_else(|| ProbeError::MissingPart {
            what: format!("map {name}"),
        })
    };
    let opened = |source| ProbeError::Map {
        operation: "opening",
        source,
    };
    Ok(NetDrops {
        source,
        netns,
        drops: BpfHash::try_from(map(&mut ebpf, "NET_DROPS")?).map_err(opened)?,
        lost: Array::try_from(map(&mut ebpf, "NET_LOST")?).map_err(opened)?,
        complained: false,
        _program: ebpf,
    })
}

fn start(ebpf: &mut Ebpf, btf: &Btf, kind: &'static str) -> Result<(), ProbeError> {
    let tp_btf = kind == TP_BTF;
    let symbol = if tp_btf { HOOK } else { "raw_kfree_skb" };
    let program = ebpf
        .program_mut(symbol)
        .ok_or_else(|| ProbeError::MissingPart {
            what: format!("program {symbol}"),
        })?;
    let attached: Result<(), ProgramError> = if tp_btf {
        <&mut BtfTracePoint>::try_from(program).and_then(|program| {
            program.load(HOOK, btf)?;
            program.attach().map(drop)
        })
    } else {
        <&mut RawTracePoint>::try_from(program).and_then(|program| {
            program.load()?;
            program.attach(HOOK).map(drop)
        })
    };
    attached.map_err(|source| ProbeError::Attach {
        kind,
        program: HOOK,
        source,
    })
}

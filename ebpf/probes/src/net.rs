//! Drops of tap queues: packets for a guest that found the queue's ring full.
//!
//! The tap itself (`tun_net_xmit`) counts them for the whole device only. It
//! frees the packet with a reason of its own, and the packet still names its
//! device and its queue.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use headroom_abi::net::{NET_QUEUES, NetQueue};

use crate::cell::atomic;

/// Drops by queue. A hash, for it is touched for a drop only; the loader sets
/// its size.
#[map]
static NET_DROPS: HashMap<NetQueue, u64> = HashMap::with_max_entries(NET_QUEUES, 0);

/// Drops that found no place in the hash.
#[map]
static NET_LOST: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Value of `SKB_DROP_REASON_FULL_RING` in this kernel; this and the offsets
/// are frozen by the loader.
#[unsafe(no_mangle)]
static REASON_FULL_RING: u32 = 0;
/// Of `sk_buff.dev`.
#[unsafe(no_mangle)]
static SKB_DEV_OFFSET: u32 = 0;
/// Of `sk_buff.queue_mapping`.
#[unsafe(no_mangle)]
static SKB_QUEUE_OFFSET: u32 = 0;
/// Of `net_device.ifindex`.
#[unsafe(no_mangle)]
static DEV_IFINDEX_OFFSET: u32 = 0;
/// Of `net_device.nd_net`, a pointer to the namespace.
#[unsafe(no_mangle)]
static DEV_NET_OFFSET: u32 = 0;
/// Of `net.ns.inum`.
#[unsafe(no_mangle)]
static NET_INUM_OFFSET: u32 = 0;

type Ptr = *const u8;

/// A packet is freed, not consumed: `kfree_skb(skb, location, reason)`; kernels
/// since 6.11 add an argument behind.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    on_free::<Direct>(ctx.arg(0), ctx.arg(2))
}

/// [`kfree_skb`] as a raw tracepoint.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn raw_kfree_skb(ctx: RawTracePointContext) -> i32 {
    on_free::<Probed>(ctx.arg(0), ctx.arg(2))
}

#[inline(always)]
fn on_free<R: Read>(skb: Ptr, reason: u32) -> i32 {
    if reason != constant(&raw const REASON_FULL_RING) {
        return 0;
    }
    let dev: Ptr = R::read(skb, constant(&raw const SKB_DEV_OFFSET));
    if dev.is_null() {
        return 0;
    }
    let net: Ptr = R::read(dev, constant(&raw const DEV_NET_OFFSET));
    if net.is_null() {
        return 0;
    }
    let queue: u16 = R::read(skb, constant(&raw const SKB_QUEUE_OFFSET));
    count(&NetQueue {
        netns: R::read(net, constant(&raw const NET_INUM_OFFSET)),
        ifindex: R::read(dev, constant(&raw const DEV_IFINDEX_OFFSET)),
        queue: u32::from(queue),
        pad: 0,
    });
    0
}

#[inline(always)]
fn count(key: &NetQueue) {
    if add(key) {
        return;
    }
    // Another CPU may be first: then the second try finds its entry.
    let _ = NET_DROPS.insert(key, 0, u64::from(BPF_NOEXIST));
    if !add(key)
        && let Some(lost) = NET_LOST.get_ptr_mut(0)
    {
        atomic(lost, 1);
    }
}

#[inline(always)]
fn add(key: &NetQueue) -> bool {
    let Some(drops) = NET_DROPS.get_ptr_mut(key) else {
        return false;
    };
    atomic(drops, 1);
    true
}

#[inline(always)]
fn constant(global: *const u32) -> u32 {
    // SAFETY: a global of this object.
    unsafe { read_volatile(global) }
}

/// How a program may read a field of a kernel structure; what can't be read is
/// 0.
trait Read {
    fn read<T: Field>(from: Ptr, offset: u32) -> T;
}

/// Types of the fields read here.
trait Field: Copy {
    const ZERO: Self;
}

impl Field for u16 {
    const ZERO: Self = 0;
}
impl Field for u32 {
    const ZERO: Self = 0;
}
impl Field for Ptr {
    const ZERO: Self = core::ptr::null();
}

/// `tp_btf`: the verifier follows typed pointers.
struct Direct;

impl Read for Direct {
    #[inline(always)]
    fn read<T: Field>(from: Ptr, offset: u32) -> T {
        // SAFETY: the verifier proves the offset, and a stale pointer reads 0.
        unsafe { read_volatile(from.wrapping_add(offset as usize).cast::<T>()) }
    }
}

/// Raw tracepoint: through a helper.
struct Probed;

impl Read for Probed {
    #[inline(always)]
    fn read<T: Field>(from: Ptr, offset: u32) -> T {
        // SAFETY: the helper fails rather than faults.
        unsafe { bpf_probe_read_kernel(from.wrapping_add(offset as usize).cast::<T>()) }
            .unwrap_or(T::ZERO)
    }
}

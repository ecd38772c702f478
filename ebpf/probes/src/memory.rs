//! Families `reclaim` and `compaction`: what a shortage of memory costs tasks,
//! and when its steps were taken.
//!
//! Only stalls of tasks count: kswapd passes none of these tracepoints;
//! khugepaged and kcompactd are told apart as kernel threads. A vhost worker
//! that is a kernel thread belongs to its VM.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task_btf},
    macros::map,
    maps::{Array, HashMap},
};
use headroom_abi::hist;
use headroom_abi::memory::{EPISODE_NS, Episode, KILLS_LEN, MemoryStats, OomKill, Stalls};
use headroom_abi::tag;

use crate::cell::{add, atomic, get, set};
use crate::hook::hook;
use crate::task::{Task, TaskPtr};
use crate::{maps, now};

/// By VM number; 0 is the host.
#[map]
static MEMORY_STATS: Array<MemoryStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The latest OOM kills.
#[map]
static OOM_KILLS: Array<OomKill> = Array::with_max_entries(KILLS_LEN, BPF_F_MMAPABLE);

/// Open stalls: thread and kind → when it began. A hash, for a stall sleeps
/// and moves; an entry lives as long as the stall, and full is counted.
#[map]
static OPEN_STALLS: HashMap<u64, u64> = HashMap::with_max_entries(4096, 0);

/// Whether `mark_victim` passes the task (kernel 6.9 and later) or its pid.
#[unsafe(no_mangle)]
static VICTIM_IS_TASK: u32 = 0;

hook! {
    /// A task begins to reclaim the host's memory.
    "mm_vmscan_direct_reclaim_begin", mm_vmscan_direct_reclaim_begin,
    raw_mm_vmscan_direct_reclaim_begin,
    |_ctx, _T| begin(RECLAIM)
}

hook! {
    /// It ends.
    "mm_vmscan_direct_reclaim_end", mm_vmscan_direct_reclaim_end,
    raw_mm_vmscan_direct_reclaim_end,
    |_ctx, T| end::<T>(RECLAIM)
}

hook! {
    /// A task begins to reclaim memory of a cgroup at its limit.
    "mm_vmscan_memcg_reclaim_begin", mm_vmscan_memcg_reclaim_begin,
    raw_mm_vmscan_memcg_reclaim_begin,
    |_ctx, _T| begin(RECLAIM)
}

hook! {
    /// It ends.
    "mm_vmscan_memcg_reclaim_end", mm_vmscan_memcg_reclaim_end,
    raw_mm_vmscan_memcg_reclaim_end,
    |_ctx, T| end::<T>(RECLAIM)
}

hook! {
    /// Reclaim has a page written: to swap, or a file's by kswapd. User space
    /// knows whether swap grew; this tells when.
    "mm_vmscan_write_folio", mm_vmscan_write_folio, raw_mm_vmscan_write_folio,
    |_ctx, _T| wrote()
}

hook! {
    /// A process will be killed; or one of its threads, already dying, wants
    /// memory. One at a time, under the kernel's `oom_lock`.
    "mark_victim", mark_victim, raw_mark_victim,
    |ctx, T| {
        // SAFETY: a global of this object, frozen by the loader.
        let is_task = unsafe { core::ptr::read_volatile(&raw const VICTIM_IS_TASK) } != 0;
        killed(if is_task { T::tgid(ctx.arg(0)) } else { process_of(ctx.arg(0)) })
    }
}

hook! {
    /// Compaction of a zone begins.
    "mm_compaction_begin", mm_compaction_begin, raw_mm_compaction_begin,
    |_ctx, _T| begin(COMPACTION)
}

hook! {
    /// It ends.
    "mm_compaction_end", mm_compaction_end, raw_mm_compaction_end,
    |_ctx, T| end::<T>(COMPACTION)
}

/// Kinds of stalls in the keys of [`OPEN_STALLS`].
const RECLAIM: u64 = 1 << 32;
const COMPACTION: u64 = 2 << 32;

#[inline(always)]
fn begin(kind: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let now = now();
    if OPEN_STALLS.insert(&key(kind, pid_tgid), &now, 0).is_err() {
        if let Some(host) = MEMORY_STATS.get_ptr_mut(0) {
            // SAFETY: an element of a map.
            atomic(unsafe { &raw mut (*host).lost }, 1);
        }
    }
    if let Some(vm) = vm(pid_tgid) {
        sign(began(vm, kind), now);
    }
}

#[inline(always)]
fn end<T: Task>(kind: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let key = key(kind, pid_tgid);
    // SAFETY: nobody else has this thread's entry.
    let Some(since) = (unsafe { OPEN_STALLS.get(&key) }).copied() else {
        return;
    };
    // Fails only for an entry that is not there.
    drop(OPEN_STALLS.remove(&key));
    let now = now();
    let Some(host) = MEMORY_STATS.get_ptr_mut(0) else {
        return;
    };
    let length = now.saturating_sub(since);
    let vm = vm(pid_tgid);
    // SAFETY: a helper without arguments.
    let current = unsafe { bpf_get_current_task_btf() } as TaskPtr;
    if vm.is_none() && T::host_tag(current, pid_tgid as u32) == tag::KERNEL {
        // SAFETY: an element of a map.
        atomic(unsafe { &raw mut (*host).background_ns }, length);
        return;
    }
    if let Some(vm) = vm {
        stalled(vm, kind, length);
    }
    sign(began(host, kind), since);
    stalled(host, kind, length);
}

#[inline(always)]
fn wrote() {
    let now = now();
    let host = MEMORY_STATS.get_ptr_mut(0);
    for stats in [host, vm(bpf_get_current_pid_tgid())].into_iter().flatten() {
        // SAFETY: an element of a map.
        sign(unsafe { &raw mut (*stats).written }, now);
    }
}

/// Process of a victim named by its thread: the chosen one is mostly the main
/// thread, a dying one is the current.
#[inline(always)]
fn process_of(tid: u32) -> u32 {
    let current = bpf_get_current_pid_tgid();
    if current as u32 == tid {
        (current >> 32) as u32
    } else {
        tid
    }
}

#[inline(always)]
fn killed(pid: u32) {
    let Some(host) = MEMORY_STATS.get_ptr_mut(0) else {
        return;
    };
    let number = get!(host.kills);
    if let Some(last) = OOM_KILLS.get_ptr((number.wrapping_sub(1) % u64::from(KILLS_LEN)) as u32)
        && number != 0
        && get!(last.pid) == pid
    {
        return;
    }
    if let Some(kill) = OOM_KILLS.get_ptr_mut((number % u64::from(KILLS_LEN)) as u32) {
        set!(kill.at_ns = now());
        set!(kill.pid = pid);
        set!(kill.tag = maps::tag_of(pid));
    }
    // Last: a reader that sees the number finds the record.
    add!(host.kills += 1);
}

#[inline(always)]
fn key(kind: u64, pid_tgid: u64) -> u64 {
    kind | (pid_tgid & 0xffff_ffff)
}

/// Record of the VM that the current process is.
#[inline(always)]
fn vm(pid_tgid: u64) -> Option<*mut MemoryStats> {
    let tag = maps::tag_of((pid_tgid >> 32) as u32);
    if !tag::is_vm(tag) || tag::vm(tag) == 0 {
        return None;
    }
    MEMORY_STATS.get_ptr_mut(tag::vm(tag))
}

#[inline(always)]
fn stalls(stats: *mut MemoryStats, kind: u64) -> *mut Stalls {
    // SAFETY: fields of an element of a map.
    unsafe {
        if kind == RECLAIM {
            &raw mut (*stats).reclaim
        } else {
            &raw mut (*stats).compaction
        }
    }
}

#[inline(always)]
fn began(stats: *mut MemoryStats, kind: u64) -> *mut Episode {
    // SAFETY: a field of an element of a map.
    unsafe { &raw mut (*stalls(stats, kind)).began }
}

/// A sign of an episode at `at_ns`.
#[inline(always)]
fn sign(episode: *mut Episode, at_ns: u64) {
    // SAFETY: a field of an element of a map.
    atomic(unsafe { &raw mut (*episode).signs }, 1);
    let last = get!(episode.last_ns);
    if at_ns > last {
        // The first one too, on a host that is up for less than that.
        if last == 0 || at_ns - last > EPISODE_NS {
            set!(episode.since_ns = at_ns);
        }
        set!(episode.last_ns = at_ns);
    }
}

#[inline(always)]
fn stalled(stats: *mut MemoryStats, kind: u64, length: u64) {
    let stalls = stalls(stats, kind);
    // SAFETY: fields of an element of a map, the bucket below their number.
    unsafe {
        atomic(&raw mut (*stalls).ns, length);
        let bucket = hist::index(length);
        if bucket < hist::BUCKETS {
            atomic(
                (&raw mut (*stalls).hist).cast::<u64>().wrapping_add(bucket),
                1,
            );
        }
    }
}

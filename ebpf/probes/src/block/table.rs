//! The maps of the family. Hashes, unlike the scheduler's: a disk does some
//! 10^5 requests a second where a host switches 10^6 times, and the addresses
//! of requests are no index. All are allocated when they are made.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_RDONLY_PROG, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap},
};
use headroom_abi::block::{BlockDrops, DiskKey, DiskStats, OpenRequest, RequestKey};
use headroom_abi::hist::{self, BUCKETS};

use super::request::RequestPtr;
use crate::cell::atomic;

/// Requests between start and completion.
#[map]
static OPEN_REQUESTS: HashMap<RequestKey, OpenRequest> = HashMap::with_max_entries(1, 0);

/// Sums of the completed ones.
#[map]
static DISK_STATS: HashMap<DiskKey, DiskStats> = HashMap::with_max_entries(1, 0);

/// Cgroup id (inode number of its directory) → number of the VM that has it
/// for itself.
#[map]
static VM_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_RDONLY_PROG);

/// What was not counted.
#[map]
static BLOCK_DROPS: Array<BlockDrops> = Array::with_max_entries(1, 0);

/// What a new element of [`DISK_STATS`] holds: 1.7 KB, three times a program's
/// stack.
#[map]
static DISK_ZERO: Array<DiskStats> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);

/// `EEXIST` of the kernel, negative as helpers return it.
const EEXIST: i32 = -17;

macro_rules! drops {
    ($field:ident) => {
        if let Some(drops) = BLOCK_DROPS.get_ptr_mut(0) {
            // SAFETY: an element of a map.
            atomic(unsafe { &raw mut (*drops).$field }, 1);
        }
    };
}

/// VM of a cgroup, 0 for none.
#[inline(always)]
pub fn vm_of_cgroup(id: u64) -> u32 {
    match VM_CGROUPS.get_ptr(id) {
        // SAFETY: an element of a map; read once, for user space changes it.
        Some(vm) => unsafe { core::ptr::read_volatile(vm) },
        None => 0,
    }
}

/// Follows a request from now on. `replace` where a record of the same address
/// is not looked for first, because there was none a moment ago.
#[inline(always)]
pub fn open(rq: RequestPtr, open: &OpenRequest, replace: bool) {
    let key = rq as RequestKey;
    let flags = if replace { BPF_ANY } else { BPF_NOEXIST };
    match OPEN_REQUESTS.insert(key, open, u64::from(flags)) {
        Ok(()) => {}
        Err(EEXIST) => {
            drops!(vanished);
            if OPEN_REQUESTS.insert(key, open, u64::from(BPF_ANY)).is_err() {
                drops!(open_full);
            }
        }
        Err(_) => drops!(open_full),
    }
}

/// Whether a request is known and not at the device.
#[inline(always)]
pub fn is_queued(rq: RequestPtr) -> bool {
    match OPEN_REQUESTS.get_ptr(rq as RequestKey) {
        // SAFETY: an element of a map.
        Some(open) => unsafe { (*open).issue_ns == 0 },
        None => false,
    }
}

/// Notes that a request went to the device; false for one not known.
#[inline(always)]
pub fn issue(rq: RequestPtr, now: u64, bytes: u32) -> bool {
    let Some(open) = OPEN_REQUESTS.get_ptr_mut(rq as RequestKey) else {
        return false;
    };
    // SAFETY: an element of a map; one CPU at a time handles a request.
    unsafe {
        (*open).issue_ns = now;
        // Others may have been merged into it since its start.
        (*open).bytes = bytes;
    }
    true
}

/// Back in the queue.
#[inline(always)]
pub fn requeue(rq: RequestPtr) {
    if let Some(open) = OPEN_REQUESTS.get_ptr_mut(rq as RequestKey) {
        // SAFETY: as in `issue`.
        unsafe { (*open).issue_ns = 0 };
        drops!(requeued);
    }
}

/// Now a part of another request.
#[inline(always)]
pub fn merge(rq: RequestPtr) {
    if OPEN_REQUESTS.remove(rq as RequestKey).is_ok() {
        drops!(merged);
    }
}

/// Ends the record of a request.
#[inline(always)]
pub fn take(rq: RequestPtr) -> Option<OpenRequest> {
    let key = rq as RequestKey;
    let open = OPEN_REQUESTS.get_ptr(key)?;
    // SAFETY: an element of a map; copied before another request may use it.
    let open = unsafe { core::ptr::read(open) };
    // Gone only if the kernel completed it twice: one of them counts.
    OPEN_REQUESTS.remove(key).ok()?;
    Some(open)
}

/// A part of a request is done.
#[inline(always)]
pub fn partial() {
    drops!(partial);
}

/// A request is done whose start was not seen.
#[inline(always)]
pub fn unseen() {
    drops!(unseen);
}

/// The sums of one VM, device and operation.
pub struct Disk(Option<*mut DiskStats>);

impl Disk {
    #[inline(always)]
    pub fn of(key: &DiskKey) -> Self {
        if let Some(stats) = DISK_STATS.get_ptr_mut(key) {
            return Self(Some(stats));
        }
        let Some(zero) = DISK_ZERO.get(0) else {
            return Self(None);
        };
        // Another CPU may be first: then its element is found below.
        let _ = DISK_STATS.insert(key, zero, u64::from(BPF_NOEXIST));
        let stats = DISK_STATS.get_ptr_mut(key);
        if stats.is_none() {
            drops!(stats_full);
        }
        Self(stats)
    }

    /// Adds a request that was completed at `now`.
    #[inline(always)]
    pub fn completed(&self, open: &OpenRequest, now: u64, error: bool) {
        let Some(stats) = self.0 else {
            return;
        };
        // One that never went to the device itself, such as a flush, has no
        // queue of its own: all its time is service.
        let issued = if open.issue_ns == 0 {
            open.start_ns
        } else {
            open.issue_ns
        };
        let service = elapsed(issued, now);
        // SAFETY: fields of an element of a map, likewise below.
        unsafe {
            atomic(&raw mut (*stats).requests, 1);
            atomic(&raw mut (*stats).bytes, u64::from(open.bytes));
            atomic(&raw mut (*stats).service_ns, service);
            count(&raw mut (*stats).service_hist, service);
        }
        if error {
            // SAFETY: as above.
            unsafe { atomic(&raw mut (*stats).errors, 1) };
        }
        if open.issue_ns != 0 && open.start_ns != 0 {
            let queue = elapsed(open.start_ns, open.issue_ns);
            // SAFETY: as above.
            unsafe {
                atomic(&raw mut (*stats).queue_ns, queue);
                count(&raw mut (*stats).queue_hist, queue);
            }
        }
    }
}

/// Clocks of CPUs may differ: a time that went back is 0.
#[inline(always)]
fn elapsed(from: u64, to: u64) -> u64 {
    if to < from {
        drops!(clock_skews);
        return 0;
    }
    to - from
}

#[inline(always)]
fn count(hist: *mut [u64; BUCKETS], ns: u64) {
    let bucket = hist::index(ns);
    if bucket < BUCKETS {
        atomic(hist.cast::<u64>().wrapping_add(bucket), 1);
    }
}

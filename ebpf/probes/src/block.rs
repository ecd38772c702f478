//! Family `block`: how long each request of a disk waited in the host's queue
//! and at the device, for whom.
//!
//! A request is attributed where it starts. Its completion runs in whatever
//! context the interrupt hit.

mod request;
mod table;

use crate::hook::hook;
use crate::now;
use crate::task::Task;
use request::{Request, RequestPtr};
use table::Disk;

hook! {
    /// A request is made of what a task submits (since 6.5).
    "block_io_start", block_io_start, raw_block_io_start,
    |ctx, T| start::<T>(ctx.arg(0))
}

hook! {
    /// A request enters a queue; those that go to the device at once do not.
    "block_rq_insert", block_rq_insert, raw_block_rq_insert,
    |ctx, T| insert::<T>(ctx.arg(0))
}

hook! {
    /// A request goes to the device.
    "block_rq_issue", block_rq_issue, raw_block_rq_issue,
    |ctx, T| issue::<T>(ctx.arg(0))
}

hook! {
    /// The device gives a request back to the queue.
    "block_rq_requeue", block_rq_requeue, raw_block_rq_requeue,
    |ctx, _T| requeue(ctx.arg(0))
}

hook! {
    /// A request becomes a part of another one and is never completed itself.
    "block_rq_merge", block_rq_merge, raw_block_rq_merge,
    |ctx, _T| merge(ctx.arg(0))
}

hook! {
    /// The device has done a request or a part of it.
    "block_rq_complete", block_rq_complete, raw_block_rq_complete,
    |ctx, T| complete::<T>(ctx.arg(0), ctx.arg::<u64>(1) & 0xff, ctx.arg(2))
}

#[inline(always)]
fn start<T: Task>(rq: RequestPtr) {
    table::open(rq, &Request::<T>::of(rq).opened(now(), true), false);
}

/// Where requests have a start of their own, the entrance into a queue tells
/// nothing new; else it is the first that is seen of most.
#[inline(always)]
fn insert<T: Task>(rq: RequestPtr) {
    if request::has_io_start() || table::is_queued(rq) {
        return;
    }
    let request = Request::<T>::of(rq);
    let now = now();
    table::open(rq, &request.opened(request.start_or(now, now), true), false);
}

#[inline(always)]
fn issue<T: Task>(rq: RequestPtr) {
    let request = Request::<T>::of(rq);
    let now = now();
    if table::issue(rq, now, request.bytes()) {
        return;
    }
    // A flush that the kernel makes for all that wait for one has no start; it
    // is nobody's, and whose context this is means nothing.
    let device_flush = request.is_device_flush();
    if request::has_io_start() && !device_flush {
        return;
    }
    // Straight to the device, so still in the context of who submitted it.
    let mut open = request.opened(request.start_or(0, now), !device_flush);
    open.issue_ns = now;
    table::open(rq, &open, true);
}

#[inline(always)]
fn requeue(rq: RequestPtr) {
    table::requeue(rq);
}

#[inline(always)]
fn merge(rq: RequestPtr) {
    table::merge(rq);
}

#[inline(always)]
fn complete<T: Task>(rq: RequestPtr, error: u64, bytes: u32) {
    let request = Request::<T>::of(rq);
    if bytes < request.bytes() {
        table::partial();
        return;
    }
    let now = now();
    if let Some(open) = table::take(rq) {
        Disk::of(&open.key).completed(&open, now, error != 0);
        return;
    }
    // A flush without data is sent to the device as another request, and where
    // requests have no start of their own this is the first that is seen of it.
    // Its cgroup still tells whose it is.
    let start = request.start_or(0, now);
    if !request::has_io_start() && request.is_empty_write() && start != 0 {
        let open = request.opened(start, false);
        Disk::of(&open.key).completed(&open, now, error != 0);
    } else if bytes != 0 {
        table::unseen();
    }
}

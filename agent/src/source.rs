//! Where a thread's scheduler figures come from: the probes, or `schedstat`
//! where they cannot be loaded or have no free slot.

mod mixed;
mod probes;
mod schedstat;

use headroom_abi::blame::KINDS;
use headroom_core::hist::Hist;

pub use mixed::{HostSource, Mixed, MixedThread};
pub use schedstat::{SCHEDSTAT, Schedstat, SchedstatThread};

/// Cumulative figures of one thread since it was registered (or since it
/// started). Nothing in here ever falls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When it was read, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Time on a CPU, a period still open included.
    pub run_ns: u64,
    /// Runnable but not running, ns, a wait still open included where the
    /// source can tell.
    pub ready_ns: u64,
    /// Events dropped because their time stamps were out of order; `None`
    /// where the source has no events.
    pub clock_skews: Option<u64>,
    /// What only the probes tell.
    pub detail: Option<Box<Detail>>,
}

/// The part of a [`Reading`] that `schedstat` does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Part of `ready_ns` after wake-ups.
    pub ready_wake_ns: u64,
    /// Part of `ready_ns` after preemptions.
    pub ready_preempt_ns: u64,
    /// Wait still open at the reading, ns; not cumulative, 0 for none.
    pub ready_open_ns: u64,
    /// Longest wait so far, ns.
    pub ready_max_ns: u64,
    /// Times switched in.
    pub switches: u64,
    /// Switch-ins on another CPU than the last.
    pub cpu_migrations: u64,
    /// Switch-ins on another NUMA node than the last; `None` on a host with
    /// one node.
    pub node_migrations: Option<u64>,
    /// Time stopped by a CPU quota; `None` on a kernel without quotas.
    pub throttled_ns: Option<u64>,
    /// Run-queue latency by who had the CPU, by [`headroom_abi::blame::kind`].
    pub blame_ns: [u64; KINDS],
    /// The part of the open wait that other VMs ran, by number; not cumulative.
    pub open_vms: Vec<(u16, u64)>,
    /// A task of the host behind much of the waits, 0 for none.
    pub host_pid: u32,
    /// Moves by the NUMA balancer; `None` on a host with one node.
    pub numa_moves: Option<u64>,
    /// Waits that ended, after wake-ups and preemptions together.
    pub hist: Hist,
}

/// A thread cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Every slot is taken.
    #[error("all slots are taken")]
    Full,
    /// The thread ended in the meantime, or does not show its figures.
    #[error("thread is gone")]
    Gone,
    /// The source itself fails.
    #[error("source failed")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Measures single threads.
///
/// Contract: between `register` and `release` of one handle, each `read`
/// gives figures that are at least those of the read before.
pub trait ThreadSource {
    /// A registered thread.
    type Handle;

    /// Value of the rows' `source` column.
    fn name(&self) -> &'static str;

    /// Starts to measure thread `tid` of process `pid`; `tag` says whose it is
    /// ([`headroom_abi::tag`]).
    ///
    /// # Errors
    /// The variants of [`RegisterError`].
    fn register(&mut self, pid: u32, tid: u32, tag: u32) -> Result<Self::Handle, RegisterError>;

    /// Stops measuring and frees what the handle holds.
    fn release(&mut self, handle: Self::Handle);

    /// The figures now; `None` once the thread is gone.
    fn read(&self, handle: &Self::Handle) -> Option<Reading>;
}

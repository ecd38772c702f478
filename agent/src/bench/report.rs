//! What came of it.

use serde::Serialize;

use crate::bench::read::ReadCosts;

/// Throughput of two loads with something attached, as a part of the
/// throughput with nothing attached; each at p10 of the time an operation took.
/// `None` is for what could not be measured, and [`ProbesReport::left_out`]
/// says why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbesReport {
    /// Ping-pong, ours, both threads unregistered.
    pub unregistered_ratio: f64,
    /// Ping-pong, ours, both threads registered.
    pub registered_ratio: f64,
    /// Ping-pong, two programs that do nothing at the hooks of switch and
    /// waking: what the kernel itself takes, the best that any tool with these
    /// hooks can reach.
    pub floor_ratio: f64,
    /// Ping-pong, libbpf-tools' runqlat.
    pub runqlat_ratio: Option<f64>,
    /// Ping-pong, libbpf-tools' biolatency.
    pub biolatency_ratio: Option<f64>,
    /// Ping-pong, both of them.
    pub runqlat_biolatency_ratio: Option<f64>,
    /// Ping-pong, the same two in one script of bpftrace.
    pub bpftrace_ratio: Option<f64>,
    /// Reads of a disk, ours, the reader registered as a vCPU.
    pub block_ratio: Option<f64>,
    /// Reads of a disk, libbpf-tools' biolatency.
    pub block_biolatency_ratio: Option<f64>,
    /// Reads of a disk, biolatency and runqlat: what ours does.
    pub block_runqlat_biolatency_ratio: Option<f64>,
    /// Reads of a disk, the script of bpftrace.
    pub block_bpftrace_ratio: Option<f64>,
    /// Mean run of our switch program, both threads registered, ns; measured
    /// apart, with the kernel's own measuring included.
    pub ns_per_switch: f64,
    /// The same of our wake-up program.
    pub ns_per_wakeup: f64,
    /// Samples of each variant.
    pub samples: u32,
    /// An operation (two wake-ups, two switches) with nothing attached, ns.
    pub ns_per_operation: f64,
    /// A read with nothing attached, ns.
    pub ns_per_read: Option<f64>,
    /// Memory of our maps.
    pub map_bytes: u64,
    /// `tp_btf` or `raw_tp`.
    pub source: &'static str,
    /// Each of our programs under a mixed load, measured apart.
    pub programs: Vec<ProgramFigure>,
    /// Reading in user space.
    pub read_us: ReadCosts,
    /// What is missing, and why.
    pub left_out: Vec<LeftOut>,
}

/// What one of our programs cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgramFigure {
    /// Its family.
    pub family: &'static str,
    /// Its tracepoint.
    pub hook: String,
    /// Times it ran.
    pub runs: u64,
    /// Mean run, the kernel's own measuring (some 20 ns) included; `None` when
    /// it never ran.
    pub ns: Option<f64>,
}

/// Something that could not be measured here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// A family of probes, a peer or a load.
    pub what: String,
    /// Why.
    pub reason: String,
}

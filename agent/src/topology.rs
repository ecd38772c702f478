//! What the host is made of: sockets, NUMA nodes, cores, SMT siblings, L3
//! domains and generations, read from `/sys/devices/system` and
//! `/proc/cpuinfo` under any root.
//!
//! Sources: `Documentation/ABI/testing/sysfs-devices-system-cpu`,
//! `…/sysfs-devices-node` (the older `ABI/stable` one) and
//! `Documentation/admin-guide/cputopology.rst` of the kernel.

pub mod capacity;
mod cpuinfo;
pub mod list;
mod sys;

pub use sys::read;

/// A host's CPUs and NUMA nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Every CPU that is present, by number.
    pub cpus: Vec<Cpu>,
    /// Every online NUMA node, by number; node 0 on a kernel without NUMA.
    pub nodes: Vec<Node>,
}

/// One CPU thread; `None` is unavailable, as most is of one that is offline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Whether it is online.
    pub online: bool,
    /// Physical package.
    pub socket: Option<u32>,
    /// NUMA node.
    pub node: Option<u32>,
    /// Lowest online thread of its core.
    pub core: Option<u32>,
    /// Online threads of its core, itself included.
    pub smt_siblings: Vec<u32>,
    /// Lowest CPU that shares its L3.
    pub l3: Option<u32>,
    /// Model name.
    pub model: Option<String>,
    /// Vendor, family, model, stepping.
    pub generation: Option<String>,
    /// Revision of the microcode.
    pub microcode: Option<String>,
    /// Highest frequency, MHz.
    pub mhz_max: Option<f64>,
    /// Guaranteed or nominal frequency, MHz.
    pub mhz_base: Option<f64>,
    /// The kernel's `cpu_capacity`: 1024 is the host's strongest CPU.
    pub cpu_capacity: Option<u32>,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub node: u32,
    /// Its online CPUs as a list; empty for a node of memory alone.
    pub cpus: Vec<u32>,
    /// Its memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Distance to each online node in order, 10 being local.
    pub distances: Vec<u32>,
}

#[cfg(test)]
mod tests;

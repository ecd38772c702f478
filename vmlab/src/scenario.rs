//! What can be run, and the machine each needs.

use std::str::FromStr;

/// Something that is done inside a machine while the agent measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// The agent starts once with each kind of program, beside one guest, on a
    /// machine where every family of probes has work: KVM and two nodes.
    Load,
    /// Four spinning guests on two CPUs.
    Nested,
    /// A vCPU thread is put on the other of two nodes 20 times.
    Numa,
    /// The same around four nodes.
    Numa4,
    /// A VM's vCPU runs on the node that its memory is not on, then on the other;
    /// the machine's cores have two threads each.
    Remote,
    /// A spinning guest under a CPU quota of a half.
    Quota,
    /// A guest reads a disk that takes 20 ms a request.
    Block,
    /// A VM's memory is squeezed: reclaim, then swap, then the OOM killer.
    Memory,
    /// Four guests on one CPU: another one is noisy each time, then one of them
    /// for one window in twenty.
    Noisy,
    /// A queue of a tap overflows, then memory is free in single pages only.
    Scarce,
}

/// How the machine is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// CPU threads, evenly over the nodes.
    pub(crate) cpus: u32,
    /// NUMA nodes, a socket each.
    pub(crate) nodes: u32,
    /// CPU threads of a core. More than one only without KVM: TCG's AMD, which
    /// SVM needs, has none.
    pub(crate) threads: u32,
    /// MiB.
    pub(crate) memory: u32,
    /// Kernel modules to load, with what they need.
    pub(crate) modules: &'static [&'static str],
    /// Whether it runs guests of its own.
    pub(crate) kvm: bool,
    /// `vda`, `vdb`, …
    pub(crate) disks: &'static [Disk],
}

/// A virtio disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disk {
    /// Reads zeros after this time.
    Null {
        /// Each request takes this, ns, however many there are.
        latency_ns: u64,
    },
    /// An empty file of the host.
    File,
}

/// Size of each disk.
pub(crate) const DISK_BYTES: u64 = 512 << 20;

const KVM: &[&str] = &["kvm-amd"];
const DISKS: &[&str] = &["virtio_pci", "virtio_blk"];
const KVM_AND_DISKS: &[&str] = &["kvm-amd", "virtio_pci", "virtio_blk"];

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Load,
        Self::Nested,
        Self::Numa,
        Self::Numa4,
        Self::Remote,
        Self::Quota,
        Self::Block,
        Self::Memory,
        Self::Noisy,
        Self::Scarce,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Nested => "nested",
            Self::Numa => "numa",
            Self::Numa4 => "numa4",
            Self::Remote => "remote",
            Self::Quota => "quota",
            Self::Block => "block",
            Self::Memory => "memory",
            Self::Noisy => "noisy",
            Self::Scarce => "scarce",
        }
    }

    pub(crate) const fn shape(self) -> Shape {
        let host = Shape {
            cpus: 2,
            nodes: 1,
            threads: 1,
            memory: 1024,
            modules: KVM,
            kvm: true,
            disks: &[],
        };
        match self {
            Self::Nested | Self::Quota | Self::Noisy => host,
            Self::Load | Self::Numa => Shape { nodes: 2, ..host },
            Self::Remote => Shape {
                cpus: 4,
                nodes: 2,
                threads: 2,
                kvm: false,
                modules: &[],
                ..host
            },
            Self::Numa4 => Shape {
                nodes: 4,
                cpus: 4,
                memory: 1536,
                ..host
            },
            // The less memory, the sooner it is in pieces.
            Self::Scarce => Shape {
                memory: 512,
                modules: &["kvm-amd", "tun"],
                ..host
            },
            Self::Block => Shape {
                modules: KVM_AND_DISKS,
                disks: &[Disk::Null {
                    latency_ns: 20_000_000,
                }],
                ..host
            },
            Self::Memory => Shape {
                kvm: false,
                modules: DISKS,
                disks: &[Disk::Null { latency_ns: 0 }, Disk::File],
                ..host
            },
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|s| s.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no scenario: {names}")
        })
    }
}

//! From the object to attached programs.

use std::{fs, io};

use aya::maps::{Array, HashMap, Map, MapData};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, Endianness};
use headroom_abi::blame::CpuLog;
use headroom_abi::memory::{KILLS_LEN, MemoryStats};
use headroom_abi::sched::{CpuStats, PIDS_PER_ELEMENT, PidSlots, SlotStats};
use headroom_abi::snapshot;
use headroom_abi::virtio::QueueStats;
use rustix::io::Errno;

use crate::probe::block::{self, BlockProbes};
use crate::probe::error::{ProbeError, answered};
use crate::probe::family::{self, Attached, Family, Kind};
use crate::probe::map::{DoorbellRecord, Mapped, WhichDoorbell};
use crate::probe::memory::MemoryReader;
use crate::probe::node::{self, Topology};
use crate::probe::queues::{self, Queues};
use crate::probe::slots::Table;
use crate::probe::snapshots::{self, Snapshots};
use crate::probe::{AttachPolicy, ProbeOptions, Probes, btf, caps, net, object};

const SNAPSHOTS: &str = "SNAPSHOTS";

/// Loads the embedded object by the policy.
pub fn attach(options: &ProbeOptions) -> Result<Probes, ProbeError> {
    attach_object(object::embedded(), options)
}

fn attach_object(bytes: &[u8], options: &ProbeOptions) -> Result<Probes, ProbeError> {
    if options.attach == AttachPolicy::Off {
        return Err(ProbeError::Disabled);
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(ProbeError::Architecture);
    }
    object::check(bytes).map_err(|source| ProbeError::Object { source })?;
    if let Some(missing) = caps::missing() {
        return Err(ProbeError::MissingCapability { missing });
    }
    let kernel = Kernel::find()?;
    load(bytes, options, &kernel)
}

/// What the loader must know of the running kernel.
struct Kernel {
    btf: Btf,
    offsets: btf::Offsets,
    topology: Topology,
    pid_max: u32,
}

impl Kernel {
    fn find() -> Result<Self, ProbeError> {
        let offsets = btf::offsets()?;
        let btf = Btf::parse_file(btf::PATH, Endianness::default())
            .map_err(|source| ProbeError::ParseBtf { source })?;
        Ok(Self {
            btf,
            offsets,
            topology: node::topology()?,
            pid_max: pid_max()?,
        })
    }
}

/// Pids are below this.
fn pid_max() -> Result<u32, ProbeError> {
    const PATH: &str = "/proc/sys/kernel/pid_max";
    fs::read_to_string(PATH)
        .and_then(|text| text.trim().parse().map_err(io::Error::other))
        .map_err(|source| ProbeError::Topology {
            path: PATH.to_owned(),
            source,
        })
}

fn load(bytes: &[u8], options: &ProbeOptions, kernel: &Kernel) -> Result<Probes, ProbeError> {
    let sizes = Sizes::of(options, kernel);
    let mut ebpf = open(bytes, options.slots, kernel, &sizes)?;
    fill_nodes(&mut ebpf, &kernel.topology)?;
    let kind = family::SCHED.attach(&mut ebpf, options.attach, &kernel.btf)?;
    let mut families = vec![Attached::of(&family::SCHED, Ok(kind))];
    families.extend(others(&mut ebpf, options.attach, kernel));
    let (block, attached) = attach_block(&mut ebpf, options.attach, kernel);
    families.push(attached);
    let (net, attached) = net::attach(&mut ebpf, options.attach, &kernel.offsets.net, &kernel.btf);
    families.push(attached);
    let snapshots = attach_snapshots(&mut ebpf, &sizes);
    families.push(snapshots::status(&snapshots));
    let memory = memory_reader(&mut ebpf, &families, &sizes)?;
    let slots = taken(&mut ebpf, "SLOT_STATS")?;
    let pids = taken(&mut ebpf, "PID_SLOTS")?;
    let queues = taken(&mut ebpf, "QUEUE_STATS")?;
    let watched = Queues {
        pids: queues::again(&pids)?,
        stats: mapped("QUEUE_STATS", &queues, sizes.slots)?,
        bells: bells(&mut ebpf)?,
        scheduler: kind.name(),
        without_kvm: families
            .iter()
            .find(|f| f.family == family::VIRTIO.name)
            .and_then(|f| f.reason.clone()),
    };
    Ok(Probes {
        source: kind.name(),
        slots: mapped("SLOT_STATS", &slots, sizes.slots)?,
        cpus: mapped("CPU_STATS", &taken(&mut ebpf, "CPU_STATS")?, sizes.cpus)?,
        logs: mapped("CPU_LOGS", &taken(&mut ebpf, "CPU_LOGS")?, sizes.cpus)?,
        blame: mapped("BLAME", &taken(&mut ebpf, "BLAME")?, sizes.vms * sizes.vms)?,
        queue_records: typed(queues)?,
        queues: Some(watched),
        vms: sizes.vms,
        pids: typed(pids)?,
        records: typed(slots)?,
        table: Table::new(options.slots),
        numa_nodes: kernel.topology.nodes,
        throttling: kernel.offsets.throttling,
        map_bytes: sizes.bytes(),
        families,
        block,
        net,
        memory,
        snapshots: snapshots.ok(),
        #[cfg(feature = "bpf-log")]
        _diagnostics: crate::probe::diagnostics::Diagnostics::start(&mut ebpf),
        programs: ebpf,
    })
}

/// The families that the agent can do without.
fn others(ebpf: &mut Ebpf, policy: AttachPolicy, kernel: &Kernel) -> Vec<Attached> {
    let mut attach =
        |family: &Family| Attached::of(family, family.attach(ebpf, policy, &kernel.btf));
    let numa = match kernel.topology.nodes {
        0 | 1 => Attached::left_out(&family::NUMA, "n/a: this host has one NUMA node"),
        _ => attach(&family::NUMA),
    };
    // Soft interrupts may be preempted there: what they take is not what lies
    // between entry and exit.
    let irq = match fs::read_to_string("/sys/kernel/realtime") {
        Ok(text) if text.trim() == "1" => Attached::left_out(
            &family::IRQ,
            "n/a: interrupts of a PREEMPT_RT kernel are threads",
        ),
        _ => attach(&family::IRQ),
    };
    let reclaim = attach(&family::RECLAIM);
    let compaction = attach(&family::COMPACTION);
    let virtio = match policy {
        AttachPolicy::Off => AttachPolicy::Off,
        _ => AttachPolicy::RawTp,
    };
    let virtio = family::VIRTIO.attach(ebpf, virtio, &kernel.btf);
    let virtio = Attached::of(&family::VIRTIO, virtio);
    vec![numa, irq, virtio, reclaim, compaction]
}

/// The family of disks, with its maps.
fn attach_block(
    ebpf: &mut Ebpf,
    policy: AttachPolicy,
    kernel: &Kernel,
) -> (Option<BlockProbes>, Attached) {
    let offsets = match &kernel.offsets.block {
        Ok(offsets) => offsets,
        Err(problem) => {
            let reason = format!("kernel BTF: {problem}");
            return (None, Attached::left_out(&family::BLOCK, &reason));
        }
    };
    let family = match offsets.has_io_start {
        0 => family::BLOCK_BEFORE_6_5,
        _ => family::BLOCK,
    };
    let attached = family.attach(ebpf, policy, &kernel.btf).and_then(|kind| {
        let skips = family.skips(kind, ebpf)?;
        let probes = BlockProbes::new(kind.name(), skips, |map| taken(ebpf, map))?;
        Ok((kind, probes))
    });
    match attached {
        Ok((kind, probes)) => (Some(probes), Attached::of(&family, Ok(kind))),
        Err(error) => (None, Attached::of(&family, Err(error))),
    }
}

/// The timer that looks at all slots, with its ring.
fn attach_snapshots(ebpf: &mut Ebpf, sizes: &Sizes) -> Result<Snapshots, ProbeError> {
    let cpu = snapshots::attach(ebpf)?;
    let map = taken(ebpf, SNAPSHOTS)?;
    let words = mapped(SNAPSHOTS, &map, snapshot::words(sizes.slots))?;
    Ok(Snapshots::new(words, typed(map)?, sizes.slots, cpu))
}

/// The reader of the memory families; `None` where neither is attached.
fn memory_reader(
    ebpf: &mut Ebpf,
    families: &[Attached],
    sizes: &Sizes,
) -> Result<Option<MemoryReader>, ProbeError> {
    let source = |of: &Family| families.iter().find(|f| f.family == of.name)?.source;
    let (reclaim, compaction) = (source(&family::RECLAIM), source(&family::COMPACTION));
    if reclaim.is_none() && compaction.is_none() {
        return Ok(None);
    }
    let stats = taken(ebpf, "MEMORY_STATS")?;
    let kills = taken(ebpf, "OOM_KILLS")?;
    Ok(Some(MemoryReader {
        reclaim,
        compaction,
        stats: mapped("MEMORY_STATS", &stats, sizes.vms)?,
        kills: mapped("OOM_KILLS", &kills, KILLS_LEN)?,
    }))
}

/// Programs that do nothing at the hooks that fire all the time; detached when
/// dropped. What they cost is the kernel's price for any program there.
pub struct EmptyPrograms {
    _programs: Ebpf,
}

impl EmptyPrograms {
    /// Attaches them, as `tp_btf`.
    ///
    /// # Errors
    /// As for [`Probes::attach`].
    pub fn attach() -> Result<Self, ProbeError> {
        let (kernel, bytes) = (Kernel::find()?, object::embedded());
        let options = ProbeOptions {
            slots: 1,
            vms: 1,
            attach: AttachPolicy::TpBtf,
        };
        let mut ebpf = open(bytes, options.slots, &kernel, &Sizes::of(&options, &kernel))?;
        for (symbol, hook) in [
            ("empty_sched_waking", "sched_waking"),
            ("empty_sched_switch", "sched_switch"),
        ] {
            Kind::TpBtf.attach(&mut ebpf, symbol, hook, &kernel.btf)?;
        }
        Ok(Self { _programs: ebpf })
    }
}

/// Creates the maps, with this host's sizes and this kernel's offsets.
fn open(bytes: &[u8], slots: u16, kernel: &Kernel, sizes: &Sizes) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&kernel.btf));
    for (global, offset) in &kernel.offsets.globals {
        loader.override_global(global, offset, true);
    }
    for (map, len) in sizes.maps().into_iter().chain(block::SIZES) {
        loader.map_max_entries(map, len);
    }
    let block = block::Offsets(kernel.offsets.block.clone().unwrap_or_default());
    let net = kernel.offsets.net.clone().unwrap_or_default();
    net::set(&mut loader, &net);
    loader
        .override_global("BLOCK_OFFSETS", &block, true)
        .override_global("BLAME_COLUMNS", &sizes.vms, true)
        .override_global("SNAPSHOT_STRIDE", &snapshot::stride(sizes.slots), true)
        .load(bytes)
        .map_err(|source| not_loaded(slots, source))
}

/// Elements of each map.
struct Sizes {
    pids: u32,
    slots: u32,
    cpus: u32,
    vms: u32,
}

impl Sizes {
    fn of(options: &ProbeOptions, kernel: &Kernel) -> Self {
        let cpus = kernel.topology.node_of_cpu.len();
        Self {
            pids: kernel.pid_max.div_ceil(PIDS_PER_ELEMENT),
            slots: u32::from(options.slots) + 1,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            vms: u32::from(options.vms) + 1,
        }
    }

    const fn maps(&self) -> [(&'static str, u32); 9] {
        [
            ("PID_SLOTS", self.pids),
            ("SLOT_STATS", self.slots),
            ("QUEUE_STATS", self.slots),
            ("CPU_STATS", self.cpus),
            ("CPU_LOGS", self.cpus),
            ("CPU_NODES", self.cpus),
            ("BLAME", self.vms * self.vms),
            ("MEMORY_STATS", self.vms),
            (SNAPSHOTS, snapshot::words(self.slots)),
        ]
    }

    const fn bytes(&self) -> u64 {
        // An element of the node table takes eight bytes in the kernel.
        self.pids as u64 * size_of::<PidSlots>() as u64
            + self.slots as u64 * (size_of::<SlotStats>() + size_of::<QueueStats>()) as u64
            + self.cpus as u64 * (size_of::<CpuStats>() + size_of::<CpuLog>() + 8) as u64
            + self.vms as u64 * self.vms as u64 * 8
            + block::MAP_BYTES
            + net::MAP_BYTES
            + self.vms as u64 * size_of::<MemoryStats>() as u64
            + snapshot::words(self.slots) as u64 * 8
    }
}

fn not_loaded(slots: u16, source: EbpfError) -> ProbeError {
    if answered(&source, Errno::NOMEM) {
        return ProbeError::Memory { slots, source };
    }
    ProbeError::Load { source }
}

fn fill_nodes(ebpf: &mut Ebpf, topology: &Topology) -> Result<(), ProbeError> {
    let missing = || ProbeError::MissingPart {
        what: "map CPU_NODES".to_owned(),
    };
    let map = ebpf.map_mut("CPU_NODES").ok_or_else(missing)?;
    let failed = |source| ProbeError::Map {
        operation: "filling",
        source,
    };
    let mut nodes = Array::<_, u32>::try_from(map).map_err(failed)?;
    for (cpu, node) in (0..).zip(&topology.node_of_cpu) {
        nodes.set(cpu, *node, 0).map_err(failed)?;
    }
    Ok(())
}

fn taken(ebpf: &mut Ebpf, name: &str) -> Result<Map, ProbeError> {
    ebpf.take_map(name).ok_or_else(|| ProbeError::MissingPart {
        what: format!("map {name}"),
    })
}

fn typed<V: aya::Pod>(map: Map) -> Result<Array<MapData, V>, ProbeError> {
    Array::try_from(map).map_err(|source| ProbeError::Map {
        operation: "opening",
        source,
    })
}

fn bells(ebpf: &mut Ebpf) -> Result<HashMap<MapData, WhichDoorbell, DoorbellRecord>, ProbeError> {
    HashMap::try_from(taken(ebpf, "DOORBELLS")?).map_err(|source| ProbeError::Map {
        operation: "opening",
        source,
    })
}

fn mapped<T>(name: &'static str, map: &Map, len: u32) -> Result<Mapped<T>, ProbeError> {
    let Map::Array(data) = map else {
        return Err(ProbeError::MissingPart {
            what: format!("array {name}"),
        });
    };
    Mapped::new(data.fd(), len).map_err(|source| ProbeError::Mmap { map: name, source })
}

//! From the object to attached programs.

use std::error::Error;
use std::{fs, io};

use aya::maps::{Array, Map, MapData};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, Endianness};
use headroom_abi::sched::{CpuStats, PIDS_PER_ELEMENT, PidSlots, SlotStats};
use rustix::io::Errno;

use crate::probe::error::ProbeError;
use crate::probe::map::Mapped;
use crate::probe::node::{self, Topology};
use crate::probe::slots::Table;
use crate::probe::{AttachPolicy, ProbeOptions, Probes, btf, caps, object};

/// The tracepoints; `sched_switch` last, so that every wake-up before the
/// first counted switch has been seen.
const HOOKS: [&str; 3] = ["sched_wakeup", "sched_wakeup_new", "sched_switch"];

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
    match options.attach {
        AttachPolicy::TpBtf => load(bytes, options, &kernel, Kind::TpBtf),
        AttachPolicy::RawTp => load(bytes, options, &kernel, Kind::RawTp),
        AttachPolicy::Auto | AttachPolicy::Off => load(bytes, options, &kernel, Kind::TpBtf)
            .or_else(|error| {
                let error: &dyn Error = &error;
                tracing::warn!(error, "tp_btf programs refused, trying raw tracepoints");
                load(bytes, options, &kernel, Kind::RawTp)
            }),
    }
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    TpBtf,
    RawTp,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
        }
    }

    /// Loads and attaches one program.
    fn attach(
        self,
        ebpf: &mut Ebpf,
        symbol: &str,
        hook: &'static str,
        btf: &Btf,
    ) -> Result<(), ProbeError> {
        let program = ebpf
            .program_mut(symbol)
            .ok_or_else(|| ProbeError::MissingPart {
                what: format!("program {symbol}"),
            })?;
        let attached = match self {
            Self::TpBtf => <&mut BtfTracePoint>::try_from(program).and_then(|program| {
                program.load(hook, btf)?;
                program.attach().map(drop)
            }),
            Self::RawTp => <&mut RawTracePoint>::try_from(program).and_then(|program| {
                program.load()?;
                program.attach(hook).map(drop)
            }),
        };
        attached.map_err(|source| self.refused(hook, source))
    }

    fn refused(self, program: &'static str, source: ProgramError) -> ProbeError {
        let kind = self.name();
        if answered(&source, Errno::PERM) || answered(&source, Errno::ACCESS) {
            return ProbeError::Forbidden {
                kind,
                program,
                source,
            };
        }
        ProbeError::Attach {
            kind,
            program,
            source,
        }
    }
}

fn load(
    bytes: &[u8],
    options: &ProbeOptions,
    kernel: &Kernel,
    kind: Kind,
) -> Result<Probes, ProbeError> {
    let sizes = Sizes::of(options, kernel);
    let mut ebpf = open(bytes, options.slots, kernel, &sizes)?;
    fill_nodes(&mut ebpf, &kernel.topology)?;
    for hook in HOOKS {
        let symbol = match kind {
            Kind::TpBtf => hook.to_owned(),
            Kind::RawTp => format!("raw_{hook}"),
        };
        kind.attach(&mut ebpf, &symbol, hook, &kernel.btf)?;
    }
    let (slots, cpus) = (
        taken(&mut ebpf, "SLOT_STATS")?,
        taken(&mut ebpf, "CPU_STATS")?,
    );
    Ok(Probes {
        source: kind.name(),
        slots: mapped("SLOT_STATS", &slots, sizes.slots)?,
        cpus: mapped("CPU_STATS", &cpus, sizes.cpus)?,
        pids: typed(taken(&mut ebpf, "PID_SLOTS")?)?,
        records: typed(slots)?,
        table: Table::new(options.slots),
        numa_nodes: kernel.topology.nodes,
        map_bytes: sizes.bytes(),
        #[cfg(feature = "bpf-log")]
        _diagnostics: crate::probe::diagnostics::Diagnostics::start(&mut ebpf),
        programs: ebpf,
    })
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
            attach: AttachPolicy::TpBtf,
        };
        let mut ebpf = open(bytes, options.slots, &kernel, &Sizes::of(&options, &kernel))?;
        for (symbol, hook) in [
            ("empty_sched_wakeup", "sched_wakeup"),
            ("empty_sched_switch", "sched_switch"),
        ] {
            Kind::TpBtf.attach(&mut ebpf, symbol, hook, &kernel.btf)?;
        }
        Ok(Self { _programs: ebpf })
    }
}

/// Creates the maps, with this host's sizes and this kernel's offsets.
fn open(bytes: &[u8], slots: u16, kernel: &Kernel, sizes: &Sizes) -> Result<Ebpf, ProbeError> {
    EbpfLoader::new()
        .btf(Some(&kernel.btf))
        .override_global("PID_OFFSET", &kernel.offsets.pid, true)
        .override_global("STATE_OFFSET", &kernel.offsets.state, true)
        .map_max_entries("PID_SLOTS", sizes.pids)
        .map_max_entries("SLOT_STATS", sizes.slots)
        .map_max_entries("CPU_STATS", sizes.cpus)
        .map_max_entries("CPU_NODES", sizes.cpus)
        .load(bytes)
        .map_err(|source| not_loaded(slots, source))
}

/// Elements of each map.
struct Sizes {
    pids: u32,
    slots: u32,
    cpus: u32,
}

impl Sizes {
    fn of(options: &ProbeOptions, kernel: &Kernel) -> Self {
        let cpus = kernel.topology.node_of_cpu.len();
        Self {
            pids: kernel.pid_max.div_ceil(PIDS_PER_ELEMENT),
            slots: u32::from(options.slots) + 1,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        }
    }

    const fn bytes(&self) -> u64 {
        // An element of the node table takes eight bytes in the kernel.
        self.pids as u64 * size_of::<PidSlots>() as u64
            + self.slots as u64 * size_of::<SlotStats>() as u64
            + self.cpus as u64 * (size_of::<CpuStats>() as u64 + 8)
    }
}

fn not_loaded(slots: u16, source: EbpfError) -> ProbeError {
    if answered(&source, Errno::NOMEM) {
        return ProbeError::Memory { slots, source };
    }
    ProbeError::Load { source }
}

/// Whether the kernel's answer, anywhere in the chain, was `errno`.
fn answered(error: &(dyn Error + 'static), errno: Errno) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(errno.raw_os_error())
        {
            return true;
        }
        next = error.source();
    }
    false
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

fn mapped<T>(name: &'static str, map: &Map, len: u32) -> Result<Mapped<T>, ProbeError> {
    let Map::Array(data) = map else {
        return Err(ProbeError::MissingPart {
            what: format!("array {name}"),
        });
    };
    Mapped::new(data.fd(), len).map_err(|source| ProbeError::Mmap { map: name, source })
}

//! Offsets of kernel fields, read from the kernel's own BTF.
//!
//! The programs carry no CO-RE relocations (Rust emits none), so the loader
//! looks the few offsets up and freezes them into the object's constants.

use std::fs;

use headroom_abi::block::BlockOffsets;

use crate::probe::block;
use crate::probe::error::ProbeError;

/// The kernel's types.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
/// Names and qualifiers: typedef, volatile, const, restrict.
const KIND_TYPEDEF: u32 = 8;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;

/// Offset given to the programs for a field that this kernel does not have.
const ABSENT: u32 = u32::MAX;

/// A field whose offset a global of the programs takes.
pub struct Field {
    /// Name of the global.
    pub global: &'static str,
    /// Structure and path of members; the first that exists counts.
    pub places: &'static [(&'static str, &'static str)],
    /// Whether the programs do without.
    pub optional: bool,
}

const fn field(global: &'static str, places: &'static [(&'static str, &'static str)]) -> Field {
    Field {
        global,
        places,
        optional: false,
    }
}

const fn optional(global: &'static str, places: &'static [(&'static str, &'static str)]) -> Field {
    Field {
        global,
        places,
        optional: true,
    }
}

/// All of them. Throttled time is kept since 6.6 in the scheduler's clock for
/// each run queue, before that in the clock of load tracking.
const FIELDS: &[Field] = &[
    field("PID_OFFSET", &[("task_struct", "pid")]),
    field("TGID_OFFSET", &[("task_struct", "tgid")]),
    field("STATE_OFFSET", &[("task_struct", "__state")]),
    field("FLAGS_OFFSET", &[("task_struct", "flags")]),
    field("CPU_OFFSET", &[("task_struct", "thread_info.cpu")]),
    field("CFS_RQ_OFFSET", &[("task_struct", "se.cfs_rq")]),
    field(
        "RUN_DELAY_OFFSET",
        &[("task_struct", "sched_info.run_delay")],
    ),
    field(
        "LAST_QUEUED_OFFSET",
        &[("task_struct", "sched_info.last_queued")],
    ),
    field("GROUP_OFFSET", &[("task_struct", "sched_task_group")]),
    field("GROUP_CFS_RQ_OFFSET", &[("task_group", "cfs_rq")]),
    field("RQ_OFFSET", &[("cfs_rq", "rq")]),
    field("CLOCK_OFFSET", &[("rq", "clock")]),
    field("NR_RUNNING_OFFSET", &[("rq", "nr_running")]),
    optional(
        "THROTTLED_TIME_OFFSET",
        &[
            ("cfs_rq", "throttled_clock_self_time"),
            ("cfs_rq", "throttled_clock_pelt_time"),
        ],
    ),
    optional(
        "THROTTLED_SINCE_OFFSET",
        &[
            ("cfs_rq", "throttled_clock_self"),
            ("cfs_rq", "throttled_clock_pelt"),
        ],
    ),
    optional("THROTTLE_COUNT_OFFSET", &[("cfs_rq", "throttle_count")]),
];

/// What the programs must know of this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Values of the programs' globals, bytes.
    pub globals: Vec<(&'static str, u32)>,
    /// Whether throttled time can be told.
    pub throttling: bool,
    /// Those of the block family; what this kernel lacks for it.
    pub block: Result<BlockOffsets, String>,
    /// Those of the program of queue drops; what this kernel lacks for it.
    pub net: Result<NetOffsets, String>,
}

impl Offsets {
    #[cfg(test)]
    fn of(&self, global: &str) -> Option<u32> {
        self.globals
            .iter()
            .find(|(name, _)| *name == global)
            .map(|(_, offset)| *offset)
    }
}

/// Reads the offsets and checks that `sched_switch` passes `prev_state`.
///
/// # Errors
/// No BTF, or not one of a supported kernel.
pub fn offsets() -> Result<Offsets, ProbeError> {
    let bytes = fs::read(PATH).map_err(|source| ProbeError::NoKernelBtf { path: PATH, source })?;
    find(&bytes).map_err(|problem| ProbeError::KernelBtf { problem })
}

/// What the program of queue drops must know of this kernel; offsets in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetOffsets {
    /// `SKB_DROP_REASON_FULL_RING`, since 5.18.
    pub full_ring: u32,
    /// Of `sk_buff.dev`.
    pub skb_dev: u32,
    /// Of `sk_buff.queue_mapping`.
    pub skb_queue: u32,
    /// Of `net_device.ifindex`.
    pub dev_ifindex: u32,
    /// Of `net_device.nd_net`.
    pub dev_net: u32,
    /// Of `net.ns.inum`.
    pub net_inum: u32,
}

/// Looks them up; names what the kernel lacks, the reason or a field.
fn find_net(types: &Types<'_>) -> Result<NetOffsets, String> {
    let arguments = types.tracepoint_arguments("kfree_skb");
    if arguments.is_none_or(|n| n < 3) {
        return Err("the tracepoint kfree_skb tells no reason (kernel 5.17)".to_owned());
    }
    let field = |of: &str, path: &str| types.offset(of, path);
    Ok(NetOffsets {
        full_ring: types
            .enumerator("SKB_DROP_REASON_FULL_RING")
            .ok_or("taps drop without a reason (kernel 5.18)")?,
        skb_dev: field("sk_buff", "dev")?,
        skb_queue: field("sk_buff", "queue_mapping")?,
        dev_ifindex: field("net_device", "ifindex")?,
        dev_net: field("net_device", "nd_net")?,
        net_inum: field("net", "ns.inum")?,
    })
}

fn find(bytes: &[u8]) -> Result<Offsets, String> {
    let types = Types::parse(bytes).ok_or("truncated or of an unknown format")?;
    let arguments = types
        .tracepoint_arguments("sched_switch")
        .ok_or("no tracepoint sched_switch")?;
    if arguments < 4 {
        return Err(format!(
            "sched_switch has {arguments} arguments, 4 are needed (kernel 5.18)"
        ));
    }
    let mut globals = Vec::new();
    for field in FIELDS {
        globals.push((field.global, offset(&types, field)?));
    }
    let throttling = globals
        .iter()
        .all(|(name, offset)| !name.starts_with("THROTTLE") || *offset != ABSENT);
    let clock = match types.offset("cfs_rq", "throttled_clock_self") {
        Ok(_) => types.offset("rq", "clock"),
        Err(_) => types.offset("rq", "clock_pelt"),
    };
    globals.push(("THROTTLED_CLOCK_OFFSET", clock.unwrap_or(ABSENT)));
    // `mark_victim(pid)`; since 6.9 `mark_victim(task, uid)`.
    let victim = types.tracepoint_arguments("mark_victim").unwrap_or(0);
    globals.push(("VICTIM_IS_TASK", u32::from(victim > 1)));
    Ok(Offsets {
        globals,
        throttling,
        block: block::offsets(&types),
        net: find_net(&types),
    })
}

fn offset(types: &Types<'_>, field: &Field) -> Result<u32, String> {
    let mut missing = String::new();
    for (of, path) in field.places {
        match types.offset(of, path) {
            Ok(offset) => return Ok(offset),
            Err(problem) => missing = problem,
        }
    }
    match field.optional {
        true => Ok(ABSENT),
        false => Err(missing),
    }
}

/// All types, by number; type 0 is void.
pub struct Types<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    refers: u32,
    extra: &'a [u8],
}

impl Type<'_> {
    const fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    const fn count(&self) -> usize {
        (self.info & 0xffff) as usize
    }
}

impl<'a> Types<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_le_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let at = |offset| word(bytes, offset).map(|w| w as usize);
        let header = at(4)?;
        let part = |offset: usize, len: usize| {
            let from = header.checked_add(offset)?;
            bytes.get(from..from.checked_add(len)?)
        };
        let mut rest = part(at(8)?, at(12)?)?;
        let strings = part(at(16)?, at(20)?)?;
        let mut types = vec![Type {
            name: 0,
            info: 0,
            refers: 0,
            extra: &[],
        }];
        while !rest.is_empty() {
            let (name, info, refers) = (word(rest, 0)?, word(rest, 4)?, word(rest, 8)?);
            let mut this = Type {
                name,
                info,
                refers,
                extra: &[],
            };
            let end = 12 + extra_len(&this)?;
            this.extra = rest.get(12..end)?;
            rest = &rest[end..];
            types.push(this);
        }
        Some(Self { types, strings })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        tail.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn struct_named(&self, name: &str) -> Option<&Type<'a>> {
        self.types
            .iter()
            .find(|t| t.kind() == KIND_STRUCT && self.name(t.name) == name.as_bytes())
    }

    /// Offset in bytes of a member, or of a member of one, `a.b`.
    pub fn offset(&self, of: &str, path: &str) -> Result<u32, String> {
        let mut at = self
            .struct_named(of)
            .ok_or_else(|| format!("no struct {of}"))?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, type_id) = self
                .member(at, name, 0)
                .ok_or_else(|| format!("{of} has no {path}"))?;
            bits += offset;
            at = self
                .bare(type_id)
                .ok_or_else(|| format!("{of}.{path} has no type"))?;
        }
        match bits % 8 {
            0 => Ok(bits / 8),
            _ => Err(format!("{of}.{path} is a bit field")),
        }
    }

    /// A type without its names and qualifiers.
    fn bare(&self, type_id: u32) -> Option<&Type<'a>> {
        let mut found = self.types.get(type_id as usize)?;
        for _ in 0..8 {
            if !matches!(found.kind(), KIND_TYPEDEF..=KIND_RESTRICT) {
                break;
            }
            found = self.types.get(found.refers as usize)?;
        }
        Some(found)
    }

    /// Offset of a member in bits and its type; members of anonymous structs
    /// and unions count as the outer one's, as in C.
    fn member(&self, of: &Type<'_>, name: &str, depth: usize) -> Option<(u32, u32)> {
        if depth > 8 || !matches!(of.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        of.extra.chunks_exact(12).find_map(|m| {
            let (member, type_id, offset) = (word(m, 0)?, word(m, 4)?, word(m, 8)?);
            let offset = if of.info >> 31 == 1 {
                offset & 0x00ff_ffff
            } else {
                offset
            };
            if self.name(member) == name.as_bytes() {
                return Some((offset, type_id));
            }
            if !self.name(member).is_empty() {
                return None;
            }
            let inner = self.types.get(type_id as usize)?;
            self.member(inner, name, depth + 1)
                .map(|(bits, type_id)| (offset + bits, type_id))
        })
    }

    /// Value of a name in any enumeration.
    fn enumerator(&self, name: &str) -> Option<u32> {
        let enums = self.types.iter().filter(|t| t.kind() == KIND_ENUM);
        enums
            .flat_map(|t| t.extra.chunks_exact(8))
            .find(|e| word(e, 0).is_some_and(|n| self.name(n) == name.as_bytes()))
            .and_then(|e| word(e, 4))
    }

    /// Arguments of a tracepoint, the leading data pointer not counted.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let name = format!("btf_trace_{tracepoint}");
        let alias = self
            .types
            .iter()
            .find(|t| t.kind() == KIND_TYPEDEF && self.name(t.name) == name.as_bytes())?;
        let pointer = self.types.get(alias.refers as usize)?;
        let function = self.types.get(pointer.refers as usize)?;
        (function.kind() == KIND_FUNC_PROTO).then(|| function.count().saturating_sub(1))
    }
}

/// Bytes after the fixed part of a type; `None` for a kind of the future.
fn extra_len(this: &Type<'_>) -> Option<usize> {
    Some(match this.kind() {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * this.count(),
        6 | 13 => 8 * this.count(),
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;

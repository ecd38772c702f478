//! Families of programs: each is attached, fails and reports on its own.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::{BtfTracePoint, Program, ProgramError, ProgramFd, RawTracePoint};
use aya::{Btf, Ebpf};
use rustix::io::Errno;

use crate::files;
use crate::probe::error::{ProbeError, answered};
use crate::probe::{AttachPolicy, chain};

/// Programs that make sense together only. A program has the name of its
/// tracepoint, its raw twin `raw_` before it.
#[derive(Debug)]
pub struct Family {
    /// Its name in rows and messages.
    pub name: &'static str,
    /// Its tracepoints, in the order of attaching.
    pub hooks: &'static [&'static str],
}

/// What the others need: waits, states, owners of CPUs. `sched_switch` last, so
/// that every wake-up before the first counted switch has been seen.
pub const SCHED: Family = Family {
    name: "sched",
    hooks: &["sched_waking", "sched_migrate_task", "sched_switch"],
};

/// What the NUMA balancer does.
pub const NUMA: Family = Family {
    name: "numa",
    hooks: &["sched_move_numa", "sched_swap_numa"],
};

/// Interrupts and the depth of run queues. Ends before beginnings: an
/// interrupt that is seen to begin will be seen to end.
pub const IRQ: Family = Family {
    name: "irq",
    hooks: &[
        "irq_handler_exit",
        "softirq_exit",
        "local_timer_exit",
        "irq_handler_entry",
        "softirq_entry",
        "local_timer_entry",
    ],
};

/// Doorbells and interrupts of guests. By name, for KVM may be a module, of
/// which the loader has no BTF.
pub const VIRTIO: Family = Family {
    name: "virtio",
    hooks: &[
        "kvm_userspace_exit",
        "kvm_pio",
        "kvm_mmio",
        "kvm_fast_mmio",
        "kvm_msi_set_irq",
        "kvm_set_irq",
    ],
};

/// Requests of disks. Starts last, so that each request that is followed is
/// followed to its end.
pub const BLOCK: Family = Family {
    name: "block",
    hooks: &[
        "block_rq_merge",
        "block_rq_requeue",
        "block_rq_complete",
        "block_rq_issue",
        "block_rq_insert",
        "block_io_start",
    ],
};

/// The same before 6.5, which has no `block_io_start`.
pub const BLOCK_BEFORE_6_5: Family = Family {
    name: BLOCK.name,
    hooks: BLOCK.hooks.split_at(5).0,
};

/// Snapshots of what the vCPUs do. No tracepoint but the perf event of that
/// name, see [`crate::probe::snapshots`].
pub const CONCURRENCY: Family = Family {
    name: "concurrency",
    hooks: &["cpu_clock"],
};

/// Every family; a hook is in one.
const ALL: [&Family; 9] = [
    &SCHED,
    &NUMA,
    &IRQ,
    &VIRTIO,
    &BLOCK,
    &RECLAIM,
    &COMPACTION,
    &NET_QUEUES,
    &CONCURRENCY,
];

/// Name of the family that a hook is in.
pub fn of_hook(hook: &str) -> &'static str {
    let family = ALL.iter().find(|family| family.hooks.contains(&hook));
    family.map_or("none", |family| family.name)
}

/// Attached programs, asked how often the kernel did not run them because an
/// interrupt came while the same program ran on that CPU.
pub struct Skips(Vec<ProgramFd>);

impl Skips {
    /// All of them since they were attached; `None` where the kernel does not
    /// tell (before 5.12).
    pub fn total(&self) -> Option<u64> {
        let mut total = 0;
        for program in &self.0 {
            let fd = program.as_fd().as_raw_fd();
            let text = files::text(format!("/proc/self/fdinfo/{fd}"))?;
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix("recursion_misses:"))?;
            total += line.trim().parse::<u64>().ok()?;
        }
        Some(total)
    }
}

/// Reclaim, what it writes, and OOM kills. Ends before beginnings.
pub const RECLAIM: Family = Family {
    name: "reclaim",
    hooks: &[
        "mm_vmscan_direct_reclaim_end",
        "mm_vmscan_memcg_reclaim_end",
        "mm_vmscan_direct_reclaim_begin",
        "mm_vmscan_memcg_reclaim_begin",
        "mm_vmscan_write_folio",
        "mark_victim",
    ],
};

/// Compaction, apart: a kernel may be built without.
pub const COMPACTION: Family = Family {
    name: "compaction",
    hooks: &["mm_compaction_end", "mm_compaction_begin"],
};

/// Drops of tap queues.
pub const NET_QUEUES: Family = Family {
    name: "net_queues",
    hooks: &["kfree_skb"],
};

/// How far a family got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub family: &'static str,
    /// `tp_btf`, `raw_tp` or `perf_event`, `agent` for what the agent does in a
    /// family's place; `None` when it is not attached.
    pub source: Option<&'static str>,
    /// Why not, and the remedy.
    pub reason: Option<String>,
}

impl Attached {
    /// A family that makes no sense on this host.
    pub fn left_out(family: &Family, reason: &str) -> Self {
        Self {
            family: family.name,
            source: None,
            reason: Some(reason.to_owned()),
        }
    }

    /// What came of attaching one that the agent can do without.
    pub fn of(family: &Family, result: Result<Kind, ProbeError>) -> Self {
        match result {
            Ok(kind) => Self {
                family: family.name,
                source: Some(kind.name()),
                reason: None,
            },
            Err(error) => Self::failed(family, &error, None),
        }
    }

    /// One that the kernel refused, and what comes of that.
    pub fn failed(family: &Family, error: &ProbeError, consequence: Option<&str>) -> Self {
        let reason = chain(error);
        tracing::warn!(family = family.name, reason, "probe family not attached");
        let mut reason = shortened(&reason);
        if let Some(consequence) = consequence {
            reason.push_str("; ");
            reason.push_str(consequence);
        }
        Self::left_out(family, &reason)
    }
}

/// A reason for a row: the verifier's log, pages long, stays in the agent's own.
fn shortened(reason: &str) -> String {
    const LONGEST: usize = 300;
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}… (the rest is in the agent's log)", &reason[..end]),
        None => reason.to_owned(),
    }
}

/// Which of the twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BTF tracepoint.
    TpBtf,
    /// Raw tracepoint.
    RawTp,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
        }
    }

    /// Name of a tracepoint's program.
    fn symbol(self, hook: &str) -> String {
        match self {
            Self::TpBtf => hook.to_owned(),
            Self::RawTp => format!("raw_{hook}"),
        }
    }

    /// Loads and attaches one program.
    pub fn attach(
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
        attached.map_err(|source| refused(self.name(), hook, source))
    }
}

/// What the kernel's answer to a program of that kind means.
pub fn refused(kind: &'static str, program: &'static str, source: ProgramError) -> ProbeError {
    // The verifier answers EACCES too, but says why.
    let verified = match &source {
        ProgramError::LoadError { verifier_log, .. } => !verifier_log.to_string().is_empty(),
        _ => false,
    };
    let forbidden = answered(&source, Errno::PERM) || answered(&source, Errno::ACCESS);
    if forbidden && !verified {
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

impl Family {
    /// Runs that the kernel left out in attached programs, see [`Skips`].
    ///
    /// # Errors
    /// A program's descriptor cannot be copied.
    pub fn skips(&self, kind: Kind, ebpf: &Ebpf) -> Result<Skips, ProbeError> {
        let hooks = self.hooks.iter();
        let programs = hooks.filter_map(|hook| ebpf.program(&kind.symbol(hook)));
        let copy = |program: &Program| {
            let fd = program.fd()?.try_clone();
            fd.map_err(ProgramError::IOError)
        };
        let fds: Result<_, ProgramError> = programs.map(copy).collect();
        fds.map(Skips)
            .map_err(|source| ProbeError::ProgramInfo { source })
    }

    /// Attaches the family by the policy: all of it or nothing.
    ///
    /// # Errors
    /// What the kernel refused; where both kinds were tried, the second time.
    pub fn attach(
        &self,
        ebpf: &mut Ebpf,
        policy: AttachPolicy,
        btf: &Btf,
    ) -> Result<Kind, ProbeError> {
        match policy {
            AttachPolicy::Off => Err(ProbeError::Disabled),
            AttachPolicy::TpBtf => self.attach_as(Kind::TpBtf, ebpf, btf),
            AttachPolicy::RawTp => self.attach_as(Kind::RawTp, ebpf, btf),
            AttachPolicy::Auto => self.attach_as(Kind::TpBtf, ebpf, btf).or_else(|error| {
                let error = chain(&error);
                tracing::debug!(
                    family = self.name,
                    error,
                    "tp_btf programs refused, trying raw tracepoints"
                );
                self.attach_as(Kind::RawTp, ebpf, btf)
            }),
        }
    }

    fn attach_as(&self, kind: Kind, ebpf: &mut Ebpf, btf: &Btf) -> Result<Kind, ProbeError> {
        for hook in self.hooks {
            if let Err(error) = kind.attach(ebpf, &kind.symbol(hook), hook, btf) {
                self.detach(kind, ebpf);
                return Err(error);
            }
        }
        Ok(kind)
    }

    /// Takes back what was attached of a family that failed.
    fn detach(&self, kind: Kind, ebpf: &mut Ebpf) {
        for hook in self.hooks {
            let Some(program) = ebpf.program_mut(&kind.symbol(hook)) else {
                continue;
            };
            // Fails only for one that was never loaded.
            drop(match kind {
                Kind::TpBtf => <&mut BtfTracePoint>::try_from(program).and_then(|p| p.unload()),
                Kind::RawTp => <&mut RawTracePoint>::try_from(program).and_then(|p| p.unload()),
            });
        }
    }
}

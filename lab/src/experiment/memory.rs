//! `headroom lab memory`: a guest that uses more and more of its memory in a
//! cgroup that limits it.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use headroom_agent::sampler::Window;
use serde_json::{Map, Value};

use super::{Common, add_seen, per};
use crate::cgroup::MemoryLimit;
use crate::guest::spec::OWN_MIB;
use crate::guest::{Guest, Spec};
use crate::measure::Meter;
use crate::report::{Report, Table};
use crate::stage::{Stage, unique_name};
use crate::terminal::duration;

/// Tables of headroom that tell of memory.
const TABLES: &[&str] = &["vm_memory"];
/// Working sets, percent of the limit, one after the other.
const STEPS: [u32; 4] = [25, 50, 90, 150];
/// Room for what QEMU itself still takes after its start, page tables and
/// stacks, MiB; less than 1 was seen.
const ROOM_MIB: u32 = 4;

/// Flags of `headroom lab memory`.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    /// Memory that the guest may dirty, MiB; QEMU's own is not counted
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=65536))]
    limit_mib: u32,
    /// How long each step takes
    #[arg(long, default_value = "3s", value_parser = duration)]
    step: Duration,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &[(&str, &str)] = &[
    ("working_set_mib", "working set MiB"),
    ("state", "guest"),
    ("charged_mib", "charged MiB"),
    ("limit_met", "limit met"),
    ("swapped_mib", "swapped MiB"),
    ("oom_kills", "OOM kills"),
    ("touches", "pages touched"),
    ("touch_mean_us", "mean µs"),
    ("touch_max_ms", "max ms"),
];

/// Runs it and prints its figures.
///
/// # Errors
/// Not root, or KVM, QEMU or the memory controller is missing.
pub async fn run(args: &MemoryArgs) -> anyhow::Result<()> {
    let stage = Stage::of_root("memory", args.common.weight)?;
    let report = report(&stage, args).await?;
    // A closed pipe ends the process while it prints: the stage goes before.
    drop(stage);
    report.print(args.common.output);
    Ok(())
}

async fn report(stage: &Stage, args: &MemoryArgs) -> anyhow::Result<Report> {
    let mut meter = Meter::attach();
    let above = STEPS
        .iter()
        .map(|step| args.limit_mib * step / 100)
        .max()
        .unwrap_or(args.limit_mib);
    let guest = stage.guest(&Spec {
        memory_mib: OWN_MIB + above,
        ..Spec::new("squeezed")
    })?;
    let limit = MemoryLimit::set(
        stage.group().context("the guest has no cgroup")?,
        guest.group().context("the guest has no cgroup")?,
        guest.pid(),
        &unique_name(),
        u64::from(args.limit_mib + ROOM_MIB) << 20,
    )?;
    let mut squeezed = Squeezed { guest, limit };
    let Squeezed { guest, limit } = &mut squeezed;
    let mut report = Report::default();
    let mut table = Table::new("memory", COLUMNS);
    let mut vm_id = None;
    for step in STEPS {
        let mib = args.limit_mib * step / 100;
        // Round once a second.
        guest.memory().set_touch(mib, mib * 256)?;
        meter.cut();
        let then = guest.memory().touched()?;
        meter.pass(args.step).await;
        let lives = guest.lives();
        let window = meter.cut();
        let touched = guest.memory().touched()?.since(&then);
        let mut row = vec![mib.into(), if lives { "runs" } else { "killed" }.into()];
        row.extend(charges(limit));
        row.extend([
            touched.count.into(),
            touched.mean_ns().map(|ns| ns / 1e3).into(),
            per(touched.max_ns, 1e6).into(),
        ]);
        table.push(row);
        add_seen(&mut report, &window, TABLES, guest.name());
        // Killed within a second it has no row in its last window.
        vm_id = id_of(&window, guest).or(vm_id);
        add_events(&mut report, &window, vm_id.as_deref());
        if !lives {
            break;
        }
    }
    report.tables.push(table);
    report.notes.push(meter.note());
    report.notes.push(format!(
        "limit {} MiB and {ROOM_MIB} MiB for QEMU above what was charged before, cgroup {}; without swap the guest is killed beyond it",
        args.limit_mib,
        limit.version()
    ));
    Ok(report)
}

/// In this order: the limit's group can only be removed when the guest is gone.
struct Squeezed {
    guest: Guest,
    limit: MemoryLimit,
}

fn charges(limit: &MemoryLimit) -> [Value; 4] {
    let mib = |bytes: Option<u64>| bytes.map(|b| per(b, f64::from(1 << 20))).into();
    [
        mib(limit.used_bytes()),
        limit.met().into(),
        mib(limit.swapped_bytes()),
        limit.kills().into(),
    ]
}

/// Id of the guest in headroom's tables.
fn id_of(window: &Window, guest: &Guest) -> Option<String> {
    let vm = window.vms.iter().find(|vm| vm.vm_name == guest.name());
    vm.map(|vm| vm.vm_id.clone())
}

/// Events about the guest, but not that it came.
fn add_events(report: &mut Report, window: &Window, vm_id: Option<&str>) {
    let Some(subject) = vm_id.map(|id| format!("vm/{id}")) else {
        return;
    };
    let events = window.events.iter();
    for event in events.filter(|e| e.subject == subject && e.kind != "vm_started") {
        let row = Map::from_iter([
            ("kind".to_owned(), event.kind.clone().into()),
            ("detail".to_owned(), event.detail.clone().into()),
        ]);
        report.seen.push(("events".to_owned(), row));
    }
}

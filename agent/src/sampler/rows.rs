//! From deltas to rows.

use headroom_core::hist::Hist;
use headroom_core::rows::{EventRow, HostRow, VcpuRow, VmRow};

use super::Window;
use super::host::{HostReader, HostSpan};
use super::observe::ObserverEvent;
use super::track::{VcpuDelta, VmDelta};
use super::window::{Delta, DeltaDetail};
use crate::discover::Vm;
use crate::source::SCHEDSTAT;

/// What all rows of a window share.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// End of the window, µs since 1970 UTC.
    pub ts: i64,
    /// Host name.
    pub host: &'a str,
}

/// Adds the rows of one VM; none for a VM that was not there for any time.
pub fn push_vm(frame: &Frame<'_>, vm: &Vm, delta: VmDelta, out: &mut Window) {
    let vcpus: Vec<(u32, VcpuDelta)> = delta
        .vcpus
        .into_iter()
        .filter(|(_, v)| v.delta.window_ns > 0)
        .collect();
    if vcpus.is_empty() {
        return;
    }
    out.vcpus
        .extend(vcpus.iter().map(|(n, v)| vcpu_row(frame, vm, *n, v)));
    out.vms.push(VmRow {
        iothread_run_ns: int(delta.io.0),
        iothread_ready_ns: int(delta.io.1),
        emulator_run_ns: int(delta.emulator.0),
        emulator_ready_ns: int(delta.emulator.1),
        ..vm_row(frame, vm, &vcpus)
    });
}

fn vcpu_row(frame: &Frame<'_>, vm: &Vm, n: u32, vcpu: &VcpuDelta) -> VcpuRow {
    let d = &vcpu.delta;
    let detail = d.detail.as_ref();
    VcpuRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        vm_id: vm.id.clone(),
        vm_name: vm.info.name.clone(),
        vcpu: i64::from(n),
        window_ns: int(d.window_ns),
        run_ns: int(d.run_ns),
        ready_ns: int(d.ready_ns),
        ready_wake_ns: detail.map(|d| int(d.ready_wake_ns)),
        ready_preempt_ns: detail.map(|d| int(d.ready_preempt_ns)),
        throttled_ns: d.throttled_ns.map(int),
        wait_ns: int(d.wait_ns),
        ready_ratio: ratio(d.ready_ns, d.window_ns),
        ready_max_ns: detail.map(|d| int(d.ready_max_ns)),
        ready_hist: detail.map(|d| d.hist.encode()),
        switches: detail.map(|d| int(d.switches)),
        cpu_migrations: detail.map(|d| int(d.cpu_migrations)),
        node_migrations: detail.and_then(|d| d.node_migrations).map(int),
        tid: i64::from(vcpu.tid),
        source: vcpu.source.to_owned(),
    }
}

/// The VM's window is its longest vCPU's; run + ready + throttled + wait =
/// window · vcpus,
/// so the time before a vCPU was plugged in counts as waiting.
fn vm_row(frame: &Frame<'_>, vm: &Vm, vcpus: &[(u32, VcpuDelta)]) -> VmRow {
    let deltas = || vcpus.iter().map(|(_, v)| &v.delta);
    let window_ns = deltas().map(|d| d.window_ns).max().unwrap_or(0);
    let provisioned = window_ns * vcpus.len() as u64;
    let (run_ns, ready_ns) = (
        total(deltas(), |d| d.run_ns),
        total(deltas(), |d| d.ready_ns),
    );
    let throttled_ns = deltas().try_fold(0, |sum, d| Some(sum + d.throttled_ns?));
    let worst = deltas().map(|d| d.ready_ns).max().unwrap_or(0);
    let by = |f: fn(&DeltaDetail) -> Option<u64>| all(deltas(), f).map(int);
    let schedstat = vcpus.iter().find(|(_, v)| v.source == SCHEDSTAT);
    let source = schedstat
        .or(vcpus.first())
        .map_or(SCHEDSTAT, |(_, v)| v.source);
    VmRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        vm_id: vm.id.clone(),
        vm_name: vm.info.name.clone(),
        vcpus: count(vcpus.len()),
        window_ns: int(window_ns),
        run_ns: int(run_ns),
        ready_ns: int(ready_ns),
        ready_wake_ns: by(|d| Some(d.ready_wake_ns)),
        ready_preempt_ns: by(|d| Some(d.ready_preempt_ns)),
        throttled_ns: throttled_ns.map(int),
        wait_ns: int(provisioned.saturating_sub(run_ns + ready_ns + throttled_ns.unwrap_or(0))),
        ready_ratio: ratio(ready_ns, provisioned),
        ready_max_ratio: ratio(worst, window_ns),
        ready_hist: merged(deltas()).map(|h| h.encode()),
        cpu_migrations: by(|d| Some(d.cpu_migrations)),
        node_migrations: by(|d| d.node_migrations),
        memory_bytes: vm.info.memory_bytes.map(int),
        vm_type: vm.info.machine.clone(),
        platform: vm.info.platform.to_owned(),
        pid: i64::from(vm.key.pid),
        source: source.to_owned(),
        ..VmRow::default()
    }
}

/// The host's row; the caller fills in what the sampler alone knows.
pub fn host_row(
    frame: &Frame<'_>,
    span: &HostSpan,
    reader: &HostReader,
    window: &Window,
) -> HostRow {
    let memory = reader.memory();
    HostRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        window_ns: int(span.window_ns),
        threads: int(span.threads),
        numa_nodes: int(reader.numa_nodes()),
        idle_ns: span.idle_ns.map(int),
        busy_ns: span.busy_ns().map(int),
        switches: span.switches.map(int),
        wakeups: span.wakeups.map(int),
        vm_run_ns: window.vms.iter().map(|v| v.run_ns).sum(),
        vm_ready_ns: window.vms.iter().map(|v| v.ready_ns).sum(),
        psi_cpu_some_ns: span.psi_cpu_some_ns.map(int),
        memory_bytes: int(memory.total_bytes),
        memory_available_bytes: memory.available_bytes.map(int),
        kernel: reader.kernel().to_owned(),
        ..HostRow::default()
    }
}

/// What a family saw happen on a host.
pub fn event_rows(host: &str, events: Vec<ObserverEvent>) -> impl Iterator<Item = EventRow> {
    events.into_iter().map(move |event| EventRow {
        ts: event.ts_us,
        host: host.to_owned(),
        kind: event.kind.to_owned(),
        subject: event.subject,
        detail: event.detail,
    })
}

fn total<'a>(deltas: impl Iterator<Item = &'a Delta>, f: fn(&Delta) -> u64) -> u64 {
    deltas.map(f).sum()
}

/// The sum where each vCPU has the figure, else unavailable.
fn all<'a>(
    mut deltas: impl Iterator<Item = &'a Delta>,
    f: fn(&DeltaDetail) -> Option<u64>,
) -> Option<u64> {
    deltas.try_fold(0, |sum, d| Some(sum + f(d.detail.as_ref()?)?))
}

fn merged<'a>(mut deltas: impl Iterator<Item = &'a Delta>) -> Option<Hist> {
    deltas.try_fold(Hist::default(), |mut sum, d| {
        sum.merge(&d.detail.as_ref()?.hist);
        Some(sum)
    })
}

/// A sum in which an unavailable part adds nothing.
pub fn add(sum: Option<u64>, part: Option<u64>) -> Option<u64> {
    match (sum, part) {
        (Some(a), Some(b)) => Some(a + b),
        (one, other) => one.or(other),
    }
}

/// A stored integer; 2^63 ns are 292 years.
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A stored count.
pub fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

//! Disks: the requests of each VM by the probes, the host's disks by the
//! kernel's own count, and what the page cache answered.

mod cgroup;
mod delta;
mod device;
mod diskstats;
mod procio;
mod stale;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use headroom_core::batch::Chunk;
use headroom_core::rows::{BlockDropRow, VmDiskRow};

use super::observe::{FamilyStatus, Observer, Scene};
use super::rows::{Frame, count, int};
use crate::cgroup::Cgroups;
use crate::probe::{BlockReading, BlockSource, MAX_OPEN, MAX_PAIRS};
use cgroup::Named;
use delta::{Delta, Deltas};
use diskstats::DiskStatsReader;
use procio::ProcIo;

/// Name of rows that belong to no VM.
const HOST: &str = "host";

/// The family `block`.
pub struct BlockObserver {
    probes: Option<Box<dyn BlockSource>>,
    reason: Option<String>,
    base: BlockReading,
    owners: BTreeMap<u16, String>,
    cgroups: Named,
    disks: DiskStatsReader,
    io: ProcIo,
    sys: PathBuf,
    failures: u64,
}

impl BlockObserver {
    /// With the attached probes, or the reason why there are none.
    #[must_use]
    pub fn new(probes: Result<Box<dyn BlockSource>, String>, proc: PathBuf) -> Self {
        let (probes, reason) = match probes {
            Ok(probes) => (Some(probes), None),
            Err(reason) => (None, Some(reason)),
        };
        let base = probes
            .as_ref()
            .and_then(|p| p.read().ok())
            .unwrap_or_default();
        Self {
            probes,
            reason,
            base,
            owners: BTreeMap::new(),
            cgroups: Named::new(Cgroups::new(proc.clone())),
            disks: DiskStatsReader::new(proc.clone(), "/sys".into()),
            io: ProcIo::new(proc),
            sys: "/sys".into(),
            failures: 0,
        }
    }

    /// Clears the numbers of VMs that are gone or that another VM has now. What
    /// the new one did between its registration and this scan, some ms, goes
    /// with it.
    fn follow_owners(&mut self, scene: &Scene<'_>) {
        let now: BTreeMap<u16, String> = scene
            .vms
            .iter()
            .filter_map(|vm| Some((vm.index?, vm.vm.id.clone())))
            .collect();
        let numbers: BTreeSet<u16> = now.keys().chain(self.owners.keys()).copied().collect();
        for number in numbers {
            if now.get(&number) == self.owners.get(&number) {
                continue;
            }
            if let Some(probes) = &mut self.probes {
                let done = probes.forget(number);
                note(&mut self.failures, done);
            }
            self.base.stats.retain(|key, _| key.vm != u32::from(number));
        }
        self.owners = now;
    }

    fn name_cgroups(&mut self, scene: &Scene<'_>, all: bool) {
        let Some(probes) = &mut self.probes else {
            return;
        };
        for (id, vm) in self.cgroups.changes(scene, all) {
            let done = probes.set_cgroup(id, vm);
            note(&mut self.failures, done);
        }
    }

    fn probe_rows(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let Some(probes) = &self.probes else {
            return Vec::new();
        };
        let mut now = match probes.read() {
            Ok(now) => now,
            Err(error) => {
                note(&mut self.failures, Err(error));
                return Vec::new();
            }
        };
        let source = probes.name();
        let stale = stale::leave_out(&mut now, |device| stale::in_flight(&self.sys, device));
        let base = std::mem::replace(&mut self.base, now);
        let now = &self.base;
        let window_ns = now.at_ns.saturating_sub(base.at_ns);
        let known = |vm: u32| {
            let number = u16::try_from(vm).ok().filter(|n| *n != 0)?;
            scene.by_index(number).map(|_| number)
        };
        let mut names = device::Names::new(&self.sys);
        let mut rows = Vec::new();
        for (key, delta) in Deltas::between(&base, now, known).by_disk {
            let vm = key.vm.and_then(|number| scene.by_index(number));
            rows.push(VmDiskRow {
                ts: frame.ts,
                host: frame.host.to_owned(),
                vm_id: vm.map_or_else(|| HOST.to_owned(), |v| v.vm.id.clone()),
                vm_name: vm.map_or_else(|| HOST.to_owned(), |v| v.vm.info.name.clone()),
                device: names.of(key.device),
                major_minor: device::major_minor(key.device),
                op: device::op(key.op).to_owned(),
                window_ns: int(window_ns),
                source: source.to_owned(),
                ..figures(&delta, window_ns)
            });
        }
        let mut drops = drop_row(frame, window_ns, &base, now);
        drops.stale = stale.map(count);
        let drops = [drops];
        vec![Chunk::of(&rows), Chunk::of(&drops)]
    }
}

impl Observer for BlockObserver {
    fn status(&self) -> Vec<FamilyStatus> {
        let block = FamilyStatus {
            family: "block",
            source: self.probes.as_ref().map(|p| p.name().to_owned()),
            reason: self.reason.clone(),
        };
        vec![block, self.io.status()]
    }

    fn tick(&mut self, scene: &Scene<'_>) {
        self.follow_owners(scene);
        self.name_cgroups(scene, false);
        self.io.tick(scene);
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let mut chunks = self.probe_rows(frame, scene);
        self.name_cgroups(scene, true);
        chunks.push(Chunk::of(&self.disks.window(frame)));
        chunks.push(Chunk::of(&self.io.window(frame, scene)));
        chunks
    }
}

/// The figures of a row; the rest is the caller's.
fn figures(delta: &Delta, window_ns: u64) -> VmDiskRow {
    let queued = delta.queue_hist.total();
    let queue_ns = (queued > 0).then_some(delta.queue_ns);
    let mean = |sum: u64, n: u64| sum as f64 / n as f64;
    let service = (delta.requests > 0).then(|| mean(delta.service_ns, delta.requests));
    let queue = queue_ns.map(|sum| mean(sum, queued));
    VmDiskRow {
        requests: int(delta.requests),
        errors: int(delta.errors),
        bytes: int(delta.bytes),
        queue_ns: queue_ns.map(int),
        queue_hist: (queued > 0).then(|| delta.queue_hist.encode()),
        service_ns: int(delta.service_ns),
        service_hist: delta.service_hist.encode(),
        await_ns: queue.zip(service).map(|(q, s)| q + s),
        in_flight: delta
            .in_flight_ns
            .filter(|_| window_ns > 0)
            .map(|ns| ns as f64 / window_ns as f64),
        in_flight_now: delta.open.map(|open| int(open.at_device)),
        queued_now: delta.open.map(|open| int(open.queued)),
        oldest_ns: delta.open.and_then(|open| open.oldest_ns).map(int),
        ..VmDiskRow::default()
    }
}

fn drop_row(
    frame: &Frame<'_>,
    window_ns: u64,
    base: &BlockReading,
    now: &BlockReading,
) -> BlockDropRow {
    let (b, n) = (&base.drops, &now.drops);
    let less = |now: u64, then: u64| int(now.saturating_sub(then));
    BlockDropRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        window_ns: int(window_ns),
        open_full: less(n.open_full, b.open_full),
        stats_full: less(n.stats_full, b.stats_full),
        unseen: less(n.unseen, b.unseen),
        vanished: less(n.vanished, b.vanished),
        merged: less(n.merged, b.merged),
        requeued: less(n.requeued, b.requeued),
        partial: less(n.partial, b.partial),
        skipped: now.skipped.zip(base.skipped).map(|(n, b)| less(n, b)),
        clock_skews: less(n.clock_skews, b.clock_skews),
        open: now.open.as_ref().map(|open| count(open.len())),
        open_capacity: i64::from(MAX_OPEN),
        pairs: count(now.stats.len()),
        pairs_capacity: i64::from(MAX_PAIRS),
        ..BlockDropRow::default()
    }
}

/// Says the first failure of the maps and every thousandth.
fn note(failures: &mut u64, done: Result<(), crate::probe::ProbeError>) {
    if let Err(error) = done {
        if failures.is_multiple_of(1000) {
            let reason = super::chain(&error);
            tracing::warn!(reason, failures, "block probes: a map refused");
        }
        *failures += 1;
    }
}

#[cfg(test)]
mod tests;

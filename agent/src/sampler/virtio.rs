//! From a guest's doorbell to its backend and back: virtqueue delay, by VM and
//! backend thread.
//!
//! A total from kick to interrupt is not given: one kick may announce several
//! requests and one interrupt complete several, so that only a guest with one
//! request at a time has the same number of both.

mod delta;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use headroom_abi::virtio::{Doorbell, DoorbellKey, QueueStats};
use headroom_core::batch::Chunk;
use headroom_core::rows::VmQueueRow;

use self::delta::Delta;
use super::observe::{FamilyStatus, Observer, Scene};
use super::rows::{Frame, int};
use crate::discover::{Role, ThreadKey, Vm, VmThread};
use crate::files;

/// What the probes know of queues.
///
/// Contract: the counters of a slot start at 0 when a thread gets it and never
/// fall while it has it.
pub trait QueueSource: Send {
    /// Slot of a registered thread.
    fn slot(&self, tid: u32) -> Option<u32>;

    /// Its counters, and the time up to which they hold, ns of
    /// `CLOCK_MONOTONIC`.
    fn read(&self, slot: u32) -> (QueueStats, u64);

    /// All doorbells that were proven.
    fn doorbells(&self) -> Vec<(DoorbellKey, Doorbell)>;

    /// Drops the doorbells of a VM that is gone.
    fn forget(&mut self, vm: u16);

    /// What watches the scheduler: `tp_btf` or `raw_tp`.
    fn scheduler(&self) -> &'static str;

    /// Why KVM's tracepoints are not attached; `None` when they are.
    fn without_kvm(&self) -> Option<&str>;
}

/// The family `virtio`.
pub struct Virtio {
    source: Result<Box<dyn QueueSource>, String>,
    proc: PathBuf,
    backends: BTreeMap<ThreadKey, Backend>,
    bells: HashMap<(u64, u64), Doorbell>,
    /// VMs of which KVM's tracepoints were seen: a guest under TCG has none.
    traced: BTreeSet<String>,
}

/// A thread that may serve queues.
struct Backend {
    vm: String,
    name: String,
    slot: u32,
    kind: &'static str,
    /// Whether it ever served a queue.
    serves: bool,
    base: (QueueStats, u64),
    last: (QueueStats, u64),
}

/// Kicks of one backend in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kicks {
    kicks: u64,
    polled: u64,
}

impl Virtio {
    /// On these probes, or with the reason why there are none. `proc` is where
    /// `/proc` is.
    #[must_use]
    pub fn new(source: Result<Box<dyn QueueSource>, String>, proc: PathBuf) -> Self {
        Self {
            source,
            proc,
            backends: BTreeMap::new(),
            bells: HashMap::new(),
            traced: BTreeSet::new(),
        }
    }

    /// Kicks since the last window by VM number and slot.
    fn kicks(&mut self) -> HashMap<(u64, u64), Kicks> {
        let mut by_slot: HashMap<(u64, u64), Kicks> = HashMap::new();
        let Ok(source) = &self.source else {
            return by_slot;
        };
        let mut bells = HashMap::new();
        for (key, now) in source.doorbells() {
            let place = (key.vm, key.address);
            let base = self.bells.get(&place).copied().unwrap_or_default();
            let since = |now: u64, base: u64| now.saturating_sub(base);
            let kicks = since(now.writes, base.writes).saturating_sub(since(now.exits, base.exits));
            let sum = by_slot.entry((key.vm, now.slot)).or_default();
            sum.kicks += kicks;
            sum.polled += kicks.saturating_sub(since(now.wakes, base.wakes));
            bells.insert(place, now);
        }
        self.bells = bells;
        by_slot
    }

    fn read_vcpu(&mut self, vm: &Vm, thread: &VmThread) {
        let Ok(source) = &self.source else { return };
        if self.traced.contains(&vm.id) {
            return;
        }
        let slot = source.slot(thread.key.tid);
        if slot.is_some_and(|slot| source.read(slot).0.writes > 0) {
            self.traced.insert(vm.id.clone());
        }
    }

    fn read(&mut self, vm: &Vm, thread: &VmThread) {
        let Ok(source) = &self.source else { return };
        let Some(slot) = source.slot(thread.key.tid) else {
            return;
        };
        let last = source.read(slot);
        let backend = self
            .backends
            .entry(thread.key)
            .or_insert_with(|| Backend::new(&self.proc, vm, thread, (slot, last.1)));
        if backend.slot != slot {
            // It lost its slot and got another one, which counts from 0.
            (backend.slot, backend.base) = (slot, (QueueStats::EMPTY, backend.last.1));
        }
        backend.last = last;
    }
}

impl Backend {
    fn new(proc: &std::path::Path, vm: &Vm, thread: &VmThread, at: (u32, u64)) -> Self {
        let (slot, now) = at;
        let tid = thread.key.tid;
        let path = proc.join(format!("{}/task/{tid}/comm", thread.pid));
        let comm = files::line(path).unwrap_or_default();
        let (kind, name) = match thread.role {
            Role::Vhost => ("vhost", comm),
            Role::IoThread => (
                "iothread",
                comm.strip_prefix("IO ").unwrap_or(&comm).to_owned(),
            ),
            _ if tid == thread.pid => ("main_loop", "main loop".to_owned()),
            _ => ("worker", comm),
        };
        Self {
            vm: vm.id.clone(),
            name,
            slot,
            kind,
            serves: false,
            base: (QueueStats::EMPTY, now),
            last: (QueueStats::EMPTY, now),
        }
    }

    /// Closes the window; `None` for a thread that never served a queue.
    fn row(
        &mut self,
        frame: &Frame<'_>,
        vm: &Vm,
        kicks: Option<Kicks>,
        source: &str,
    ) -> Option<VmQueueRow> {
        let delta = Delta::between(&self.base, &self.last);
        if delta.window_ns == 0 {
            // Found by the last tick: its window is the next.
            return None;
        }
        self.base = self.last;
        self.serves |= delta::serves(&self.last.0) || kicks.is_some_and(|k| k.kicks > 0);
        let known = source.ends_with(KVM);
        let kvm = |value: u64| known.then(|| int(value));
        self.serves.then(|| VmQueueRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            vm_id: vm.id.clone(),
            vm_name: vm.info.name.clone(),
            backend: self.name.clone(),
            kind: self.kind.to_owned(),
            tid: 0,
            window_ns: int(delta.window_ns),
            kicks: known.then(|| int(kicks.unwrap_or_default().kicks)),
            polled: known.then(|| int(kicks.unwrap_or_default().polled)),
            wakes: int(delta.wakes),
            pickups: int(delta.pickup.total()),
            pickup_ns: int(delta.pickup_ns),
            pickup_max_ns: int(delta.pickup_max_ns),
            pending_ns: int(delta.pending_ns),
            pickup_hist: delta.pickup.encode(),
            completions: int(delta.completion.total()),
            completion_ns: int(delta.completion_ns),
            completion_hist: delta.completion.encode(),
            injects: kvm(delta.injects),
            inject_wakes: kvm(delta.inject.total()),
            inject_ns: kvm(delta.inject_ns),
            inject_hist: known.then(|| delta.inject.encode()),
            source: source.to_owned(),
        })
    }
}

/// End of a row's source where KVM's tracepoints are attached.
const KVM: &str = "+kvm";

impl Observer for Virtio {
    fn status(&self) -> Vec<FamilyStatus> {
        let (source, reason) = match &self.source {
            Err(reason) => (None, Some(reason.clone())),
            Ok(source) => match source.without_kvm() {
                None => (Some(format!("{}{KVM}", source.scheduler())), None),
                Some(reason) => (
                    Some(source.scheduler().to_owned()),
                    Some(format!(
                        "kicks and injections unavailable, pickups told by the waker alone: {reason}"
                    )),
                ),
            },
        };
        vec![FamilyStatus {
            family: "virtio",
            source,
            reason,
        }]
    }

    fn tick(&mut self, scene: &Scene<'_>) {
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            for thread in &vm.vm.threads {
                match thread.role {
                    Role::Vcpu(_) => self.read_vcpu(vm.vm, thread),
                    _ => self.read(vm.vm, thread),
                }
            }
        }
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let kicks = self.kicks();
        let Ok(source) = &mut self.source else {
            return Vec::new();
        };
        let kvm = source.without_kvm().is_none();
        let scheduler = source.scheduler();
        let (plain, with_kvm) = (scheduler.to_owned(), format!("{scheduler}{KVM}"));
        let vms: HashMap<&str, _> = scene.vms.iter().map(|vm| (vm.vm.id.as_str(), vm)).collect();
        let mut rows = Vec::new();
        for (key, backend) in &mut self.backends {
            let Some(vm) = vms.get(backend.vm.as_str()) else {
                continue;
            };
            let place = (u64::from(vm.index.unwrap_or(0)), u64::from(backend.slot));
            let kicks = kicks.get(&place).copied();
            let traced = kvm && self.traced.contains(&backend.vm);
            let name = if traced { &with_kvm } else { &plain };
            let row = backend.row(frame, vm.vm, kicks, name);
            rows.extend(row.map(|row| VmQueueRow {
                tid: i64::from(key.tid),
                ..row
            }));
        }
        for vm in scene.vms.iter().filter(|vm| !vm.live) {
            self.traced.remove(&vm.vm.id);
            if let Some(index) = vm.index {
                source.forget(index);
            }
        }
        let live: BTreeSet<ThreadKey> = scene
            .vms
            .iter()
            .filter(|vm| vm.live)
            .flat_map(|vm| vm.vm.threads.iter().map(|t| t.key))
            .collect();
        self.backends.retain(|key, _| live.contains(key));
        vec![Chunk::of(&rows)]
    }
}

#[cfg(test)]
mod tests;

//! One VM's threads between two windows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use headroom_abi::tag;

use super::window::{self, Delta};
use crate::discover::{Role, ThreadKey, Vm, VmThread};
use crate::probe::Activity;
use crate::source::{HostSource, Mixed, MixedThread, Reading, ThreadSource as _};

/// A VM with its registered threads.
pub struct Tracked<P: HostSource> {
    /// As the last scan saw it.
    pub vm: Vm,
    /// Its number in the probes' maps.
    pub number: Option<u16>,
    threads: BTreeMap<ThreadKey, Thread<P::Handle>>,
    closed: VmDelta,
    concurrency: BTreeMap<usize, u64>,
    /// Up to when that is known, `CLOCK_MONOTONIC` ns.
    sampled_ns: u64,
}

struct Thread<H> {
    handle: MixedThread<H>,
    source: &'static str,
    role: Role,
    base: Reading,
    last: Reading,
    /// Whether it ran for most of the time between the last two readings.
    ran: bool,
}

/// What the threads of a VM did in one window.
#[derive(Default)]
pub struct VmDelta {
    /// Each vCPU, by number.
    pub vcpus: BTreeMap<u32, VcpuDelta>,
    /// Iothreads and vhost workers: run and ready, ns.
    pub io: (u64, u64),
    /// The other threads: run and ready, ns.
    pub emulator: (u64, u64),
    /// Events out of order over all threads.
    pub clock_skews: Option<u64>,
    /// What open waits of vCPUs add to the matrix of who waited for whom.
    pub open_vms: Vec<(u16, u64)>,
    /// Time in which so many vCPUs ran or were ready at once, ns.
    pub concurrency: BTreeMap<usize, u64>,
}

/// One vCPU in one window.
pub struct VcpuDelta {
    /// Thread id.
    pub tid: u32,
    /// What measured it.
    pub source: &'static str,
    /// What it did.
    pub delta: Delta,
}

impl<P: HostSource> Tracked<P> {
    /// One that is followed from `now_ns` on.
    pub fn new(vm: Vm, number: Option<u16>, now_ns: u64) -> Self {
        Self {
            vm,
            number,
            threads: BTreeMap::new(),
            closed: VmDelta::default(),
            concurrency: BTreeMap::new(),
            sampled_ns: now_ns,
        }
    }

    /// Releases the threads that a scan saw no more.
    pub fn release_gone(&mut self, vm: &Vm, source: &mut Mixed<P>) {
        let seen: BTreeSet<ThreadKey> = vm.threads.iter().map(|t| t.key).collect();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.threads)
            .into_iter()
            .partition(|(key, _)| seen.contains(key));
        self.threads = kept;
        for (key, thread) in gone {
            self.close(key, thread, source);
        }
    }

    /// Takes over what a scan saw: registers new threads and reads all. Those
    /// that ended are to be released before, of all VMs: a new thread may
    /// already have their number.
    pub fn update(&mut self, vm: Vm, source: &mut Mixed<P>) {
        let mut before = std::mem::take(&mut self.threads);
        for seen in &vm.threads {
            let thread = match before.remove(&seen.key) {
                Some(mut thread) if thread.role != seen.role => {
                    // A thread gets its name only after its start: what it did
                    // until the last scan stays with the role it seemed to
                    // have. The programs know it by its old role, too.
                    self.closed.add(seen.key.tid, &mut thread);
                    thread.role = seen.role;
                    if let Some(reading) = source.read(&thread.handle) {
                        thread.last = reading;
                    }
                    self.close(seen.key, thread, source);
                    Thread::register(seen, self.number, source)
                }
                Some(mut thread) => {
                    if let Some(reading) = source.read(&thread.handle) {
                        let time = reading.at_ns.saturating_sub(thread.last.at_ns);
                        let ran = reading.run_ns.saturating_sub(thread.last.run_ns);
                        thread.ran = ran > time / 2;
                        thread.last = reading;
                    }
                    Some(thread)
                }
                None => Thread::register(seen, self.number, source),
            };
            self.threads.extend(thread.map(|thread| (seen.key, thread)));
        }
        self.vm = vm;
    }

    /// Releases all threads; what they did until the last reading stays for
    /// the final window.
    pub fn end(&mut self, source: &mut Mixed<P>) {
        for (key, thread) in std::mem::take(&mut self.threads) {
            self.close(key, thread, source);
        }
    }

    /// What happened since the last window.
    pub fn close_window(&mut self) -> VmDelta {
        let mut out = std::mem::take(&mut self.closed);
        for (key, thread) in &mut self.threads {
            out.add(key.tid, thread);
            if let (Role::Vcpu(_), Some(detail)) = (thread.role, &thread.last.detail) {
                out.open_vms.extend(&detail.open_vms);
            }
        }
        out.concurrency = std::mem::take(&mut self.concurrency);
        out
    }

    /// Notes how many vCPUs ran or were ready at the end of `span`, for all of
    /// it that is not known yet; `look` gives `None` for a thread that the
    /// probes do not see. Nothing for a VM with such a vCPU.
    pub fn sample(
        &mut self,
        span: Range<u64>,
        look: impl Fn(&MixedThread<P::Handle>) -> Option<Activity>,
    ) {
        let from_ns = span.start.max(self.sampled_ns);
        if span.end <= from_ns {
            return;
        }
        self.sampled_ns = span.end;
        let (mut seen, mut active) = (0, 0);
        for thread in self.threads.values() {
            if !matches!(thread.role, Role::Vcpu(_)) {
                continue;
            }
            let Some(activity) = look(&thread.handle) else {
                return;
            };
            seen += usize::from(activity != Activity::Absent);
            active += usize::from(match activity {
                Activity::Active => true,
                Activity::Inactive | Activity::Absent => false,
                Activity::Unknown => thread.ran,
            });
        }
        if seen > 0 {
            *self.concurrency.entry(active).or_default() += span.end - from_ns;
        }
    }

    /// vCPU threads now.
    pub fn vcpus(&self) -> usize {
        self.threads
            .values()
            .filter(|t| matches!(t.role, Role::Vcpu(_)))
            .count()
    }

    /// Threads measured by `schedstat`.
    pub fn without_slot(&self) -> usize {
        self.threads
            .values()
            .filter(|t| matches!(t.handle, MixedThread::Schedstat(_)))
            .count()
    }

    /// Moves threads to slots that became free. Only right after a window,
    /// so that no window mixes two sources.
    pub fn claim_free_slots(&mut self, source: &mut Mixed<P>) {
        for seen in &self.vm.threads {
            if !source.has_free_slot() {
                return;
            }
            let waits = |t: &Thread<P::Handle>| matches!(t.handle, MixedThread::Schedstat(_));
            if self.threads.get(&seen.key).is_some_and(waits)
                && let Some(thread) = Thread::register(seen, self.number, source)
                && let Some(old) = self.threads.insert(seen.key, thread)
            {
                source.release(old.handle);
            }
        }
    }

    fn close(&mut self, key: ThreadKey, mut thread: Thread<P::Handle>, source: &mut Mixed<P>) {
        self.closed.add(key.tid, &mut thread);
        source.release(thread.handle);
    }
}

impl<H> Thread<H> {
    fn register<P: HostSource<Handle = H>>(
        seen: &VmThread,
        number: Option<u16>,
        source: &mut Mixed<P>,
    ) -> Option<Self> {
        let tag = tag::of(number.unwrap_or(0), seen.role.tag());
        // An error here means that the thread ended in the meantime: the next
        // scan will not see it.
        let handle = source.register(seen.pid, seen.key.tid, tag).ok()?;
        let Some(base) = source.read(&handle) else {
            source.release(handle);
            return None;
        };
        Some(Self {
            source: source.source_of(&handle),
            handle,
            role: seen.role,
            ran: false,
            last: base.clone(),
            base,
        })
    }
}

impl VmDelta {
    fn add<H>(&mut self, tid: u32, thread: &mut Thread<H>) {
        let delta = window::advance(&mut thread.base, &thread.last);
        self.clock_skews = super::rows::add(self.clock_skews, delta.clock_skews);
        let sum = match thread.role {
            Role::Vcpu(n) => {
                return self.add_vcpu(
                    n,
                    VcpuDelta {
                        tid,
                        source: thread.source,
                        delta,
                    },
                );
            }
            Role::IoThread | Role::Vhost => &mut self.io,
            Role::Emulator => &mut self.emulator,
        };
        sum.0 += delta.run_ns;
        sum.1 += delta.ready_ns;
    }

    /// A vCPU that was unplugged and plugged in again within one window had
    /// two threads: one row, of the longer part. One thread in two parts is
    /// one row of both.
    fn add_vcpu(&mut self, n: u32, vcpu: VcpuDelta) {
        match self.vcpus.get_mut(&n) {
            Some(same) if same.tid == vcpu.tid => same.delta.append(&vcpu.delta),
            Some(other) if other.delta.window_ns >= vcpu.delta.window_ns => {}
            _ => {
                self.vcpus.insert(n, vcpu);
            }
        }
    }
}

//! Once a second: find the VMs, register their threads, read them. Once a
//! window: subtract and make rows.

mod blame;
mod block;
mod cpus;
mod families;
mod host;
mod inventory;
mod make;
mod memory;
mod net;
mod numa;
mod numbers;
mod observe;
mod repeat;
mod rows;
mod sched;
mod stat;
mod steal;
mod tasks;
mod topology;
mod track;
pub mod virtio;
pub mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use headroom_core::batch::Chunk;
use headroom_core::rows::{BlameRow, EventRow, HostRow, VcpuRow, VmRow};

use crate::clock;
use crate::discover::{Discovery, Vm, VmKey};
use crate::probe::{AttachPolicy, ProbeOptions, Probes};
use crate::source::{HostSource, Mixed, ThreadSource as _};
use blame::{Matrix, Waited};
use cpus::Cpus;
use host::{HostReader, HostReading};
use inventory::Book;
use make::Families;
pub use memory::MemoryObserver;
use numbers::Numbers;
pub use observe::{FamilyStatus, Observer, ObserverEvent, Scene, SceneVm};
pub use rows::Frame;
use track::Tracked;

/// VMs that have a number in the probes' maps at once.
const MAX_VMS: u16 = crate::probe::DEFAULT_VMS;

/// What a sampler needs to know.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// Host name for the rows.
    pub host: String,
    /// Threads that the probes can hold at once.
    pub slots: u16,
    /// How to attach.
    pub attach: AttachPolicy,
    /// Where `/proc` is.
    pub proc: PathBuf,
    /// Where `/sys` is.
    pub sys: PathBuf,
    /// Where KVM's directory in debugfs is, if there is one.
    pub kvm_debug: PathBuf,
    /// Where libvirt keeps the state of running domains, if it is there.
    pub libvirt: PathBuf,
    /// Labels of VMs; see [`crate::inventory::Rules`].
    pub labels: Option<PathBuf>,
}

impl SamplerOptions {
    /// For that host with the configuration's defaults.
    #[must_use]
    pub fn new(host: String) -> Self {
        let slots = crate::config::DEFAULT_SLOTS;
        Self {
            host,
            slots,
            attach: AttachPolicy::Auto,
            proc: "/proc".into(),
            sys: "/sys".into(),
            kvm_debug: "/sys/kernel/debug/kvm".into(),
            libvirt: "/run/libvirt/qemu".into(),
            labels: None,
        }
    }
}

/// The rows of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// One row a vCPU.
    pub vcpus: Vec<VcpuRow>,
    /// One row a VM.
    pub vms: Vec<VmRow>,
    /// The host's row.
    pub hosts: Vec<HostRow>,
    /// What happened since the last window.
    pub events: Vec<EventRow>,
    /// Who had the CPUs that the VMs waited for.
    pub blame: Vec<BlameRow>,
    /// Rows of the other families.
    pub more: Vec<Chunk>,
}

impl Window {
    /// The rows as they are shipped, empty tables left out.
    #[must_use]
    pub fn chunks(&self) -> Vec<Chunk> {
        let all = [
            Chunk::of(&self.vcpus),
            Chunk::of(&self.vms),
            Chunk::of(&self.hosts),
            Chunk::of(&self.events),
            Chunk::of(&self.blame),
        ];
        all.into_iter()
            .chain(self.more.iter().cloned())
            .filter(|chunk| chunk.rows() > 0)
            .collect()
    }
}

/// Measures this host. `P` are the probes; tests put others in their place.
pub struct Sampler<P: HostSource = Probes> {
    host: String,
    discovery: Discovery,
    source: Mixed<P>,
    degraded: Option<String>,
    live: BTreeMap<VmKey, Tracked<P>>,
    ended: Vec<Tracked<P>>,
    host_reader: HostReader,
    host_base: HostReading,
    events: Vec<EventRow>,
    spool_dropped_rows: u64,
    observers: Vec<Box<dyn Observer>>,
    book: Book,
    numbers: Numbers,
    cpus: Option<Cpus>,
    matrix: Matrix,
    sampled_ns: u64,
    kernel_samples: bool,
}

impl Sampler<Probes> {
    /// Attaches the probes and looks for VMs. Where the probes cannot be
    /// attached the sampler works all the same, see [`Self::degraded`].
    #[must_use]
    pub fn new(options: SamplerOptions) -> Self {
        let attach = ProbeOptions {
            slots: options.slots,
            vms: MAX_VMS,
            attach: options.attach,
        };
        let (mut probes, degraded) = match (options.attach, Probes::attach(&attach)) {
            (_, Ok(probes)) => (Some(probes), None),
            (AttachPolicy::Off, Err(_)) => (
                None,
                Some("probes are switched off by agent.attach".to_owned()),
            ),
            (_, Err(error)) => (None, Some(chain(&error))),
        };
        let families = Families::make(&options, probes.as_mut(), degraded.as_deref());
        let mut sampler = Self::with_source(options, probes, degraded);
        sampler.observers = families.observers;
        sampler.book = families.book;
        sampler
    }
}

impl<P: HostSource> Sampler<P> {
    /// A sampler on the given probes; `degraded` says why there are none.
    pub fn with_source(
        options: SamplerOptions,
        probes: Option<P>,
        degraded: Option<String>,
    ) -> Self {
        let source = Mixed::new(probes);
        let host_reader = HostReader::new();
        let cpus = source.probes().map(|probes| {
            let interrupts = probes
                .families()
                .iter()
                .any(|f| f.family == "irq" && f.source.is_some());
            Cpus::new(probes.cpus(), clock::monotonic_ns(), interrupts)
        });
        let totals = source.probes().map(HostSource::cpus);
        let mut sampler = Self {
            host_base: host_reader.read(totals.as_deref()),
            host: options.host,
            discovery: Discovery::new(options.proc, options.kvm_debug),
            source,
            degraded,
            live: BTreeMap::new(),
            ended: Vec::new(),
            host_reader,
            events: Vec::new(),
            spool_dropped_rows: 0,
            observers: Vec::new(),
            book: Book::default(),
            numbers: Numbers::new(MAX_VMS),
            cpus,
            matrix: Matrix::default(),
            sampled_ns: clock::monotonic_ns(),
            kernel_samples: false,
        };
        let subject = format!("host/{}", sampler.host);
        let detail = format!(
            "agent {} measures by {}",
            env!("CARGO_PKG_VERSION"),
            sampler.source.name()
        );
        sampler.event("agent_started", subject.clone(), detail);
        if let Some(reason) = sampler.degraded.clone() {
            tracing::warn!(reason, "probes not attached, measuring by schedstat");
            sampler.event("agent_degraded", subject, reason);
        }
        sampler
    }

    /// Lets a further family measure from the next tick on.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observers.push(observer);
    }

    /// Why the probes are not attached; `None` when they are.
    #[must_use]
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// What measures: `tp_btf`, `raw_tp` or `schedstat`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source.name()
    }

    /// Notes how many rows the sender has dropped so far, for the host row.
    pub fn set_spool_dropped_rows(&mut self, rows: u64) {
        self.spool_dropped_rows = rows;
    }

    /// Makes an event of why the spool can't be used, or of its recovery.
    pub fn note_spool(&mut self, problem: Option<&str>) {
        let kind = problem.map_or("spool_recovered", |_| "spool_failed");
        let subject = format!("host/{}", self.host);
        self.event(kind, subject, problem.unwrap_or_default().into());
    }

    /// Looks for VMs and threads that came or went, and reads all threads.
    pub fn tick(&mut self) {
        let vms = self.discovery.scan();
        // While the threads of the snapshots still have their slots.
        self.count_snapshots();
        // Those that ended first: a new thread may already have their number.
        let seen: BTreeSet<&VmKey> = vms.iter().map(|vm| &vm.key).collect();
        let (live, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.live)
            .into_iter()
            .partition(|(key, _)| seen.contains(key));
        self.live = live;
        for (_, tracked) in gone {
            self.stopped(tracked);
        }
        for vm in &vms {
            if let Some(tracked) = self.live.get_mut(&vm.key) {
                tracked.release_gone(vm, &mut self.source);
            }
        }
        for vm in vms {
            let mut tracked = self
                .live
                .remove(&vm.key)
                .unwrap_or_else(|| self.started(&vm));
            tracked.update(vm, &mut self.source);
            self.live.insert(tracked.vm.key.clone(), tracked);
        }
        let scene = scene(&self.live, &self.ended);
        if let Some(probes) = self.source.probes() {
            self.matrix.tick(&scene, &|victim| probes.blamed(victim));
        }
        for observer in &mut self.observers {
            observer.tick(&scene);
            let happened = observer.take_events();
            self.events.extend(rows::event_rows(&self.host, happened));
        }
        for problem in self.book.take_problems() {
            self.event("labels_broken", format!("host/{}", self.host), problem);
        }
        for name in self.discovery.take_nameless() {
            let detail = "its vCPU threads have no names: mount debugfs at /sys/kernel/debug, or start QEMU with -name …,debug-threads=on";
            tracing::warn!(vm = name, "vm not measured: its vcpu threads have no names");
            self.event("vm_unreadable", format!("vm/{name}"), detail.to_owned());
        }
    }

    /// Between ticks: looks how many vCPUs of each VM run or are ready at once.
    /// Needed some twenty times a second, unless the kernel does that
    /// ([`Self::kernel_samples`]). Reads memory only.
    pub fn sample(&mut self) {
        self.count_snapshots();
        if self.kernel_samples {
            return;
        }
        let now = clock::monotonic_ns();
        for tracked in self.live.values_mut() {
            tracked.sample(self.sampled_ns..now, |t| self.source.active(t, None));
        }
        self.sampled_ns = now;
    }

    /// Whether the kernel noted what the vCPUs did since the last tick: then
    /// the ticks are enough.
    #[must_use]
    pub const fn kernel_samples(&self) -> bool {
        self.kernel_samples
    }

    /// Adds what the kernel noted since the last time.
    fn count_snapshots(&mut self) {
        let snapshots = self.source.take_snapshots();
        self.kernel_samples = snapshots.is_some();
        for snapshot in snapshots.iter().flatten() {
            let span = snapshot.from_ns..snapshot.at_ns;
            for tracked in self.live.values_mut() {
                let look = |t: &_| self.source.active(t, Some(snapshot));
                tracked.sample(span.clone(), look);
            }
            self.sampled_ns = self.sampled_ns.max(snapshot.at_ns);
        }
    }

    /// Ends a window at the last tick's readings and begins the next one
    /// there. `ts_us` is the window's end for the rows, µs since 1970 UTC.
    pub fn window(&mut self, ts_us: i64) -> Window {
        let totals = self.source.probes().map(HostSource::cpus);
        let host_now = self.host_reader.read(totals.as_deref());
        let mut out = Window {
            events: std::mem::take(&mut self.events),
            ..Window::default()
        };
        let frame = Frame {
            ts: ts_us,
            host: &self.host,
        };
        let mut skews = None;
        let mut blamed = Vec::new();
        for tracked in self.live.values_mut().chain(&mut self.ended) {
            let vm = tracked.close_window();
            skews = rows::add(skews, vm.clock_skews);
            let sched = sched::Sched::of(&vm);
            out.more.extend(sched.rows(&frame, &tracked.vm));
            blamed.extend(sched.victim.map(|victim| Waited {
                key: tracked.vm.key.clone(),
                victim,
                open: vm.open_vms.clone(),
            }));
            let told = out.vms.len();
            rows::push_vm(&frame, &tracked.vm, vm, &mut out);
            for row in &mut out.vms[told..] {
                self.book.fill(&tracked.vm.key, row);
            }
        }
        let scene = scene(&self.live, &self.ended);
        if self.source.probes().is_some() {
            out.blame = self.matrix.window(&frame, &scene, &blamed);
        }
        if let (Some(cpus), Some(totals)) = (&mut self.cpus, &totals) {
            out.more.extend(cpus.rows(&frame, totals));
        }
        out.more.push(families::rows(&frame, &self.families()));
        for observer in &mut self.observers {
            out.more.extend(observer.window(&frame, &scene));
            let happened = observer.take_events();
            out.events.extend(rows::event_rows(frame.host, happened));
        }
        let now = Instant::now();
        for number in self.ended.drain(..).filter_map(|gone| gone.number) {
            self.numbers.release(number, now);
        }
        let span = host_now.since(&self.host_base);
        let mut row = rows::host_row(&frame, &span, &self.host_reader, &out);
        row.vms = rows::count(self.live.len());
        row.vcpus = rows::count(self.live.values().map(Tracked::vcpus).sum());
        row.slots_used = self.source.probes().map(|p| rows::count(p.slots_used()));
        row.unregistered = match self.source.probes() {
            Some(_) => rows::count(self.live.values().map(Tracked::without_slot).sum()),
            None => 0,
        };
        row.clock_skews = skews.map(rows::int);
        row.spool_dropped_rows = rows::int(self.spool_dropped_rows);
        row.source = self.source.name().to_owned();
        out.hosts.push(row);
        self.host_base = host_now;
        for tracked in self.live.values_mut() {
            tracked.claim_free_slots(&mut self.source);
        }
        out
    }

    /// How far each family of measurements works.
    #[must_use]
    pub fn families(&self) -> Vec<FamilyStatus> {
        let probes = match (self.source.probes(), &self.degraded) {
            (Some(probes), _) => probes.families(),
            (None, reason) => vec![FamilyStatus {
                family: "sched",
                source: Some(self.source.name().to_owned()),
                reason: reason.clone(),
            }],
        };
        let others = self.observers.iter().flat_map(|o| o.status());
        let mut all = probes;
        for family in others {
            // One that works on the probes is named by them already.
            if all.iter().all(|known| known.family != family.family) {
                all.push(family);
            }
        }
        all
    }

    fn started(&mut self, vm: &Vm) -> Tracked<P> {
        let (pid, name, platform) = (vm.key.pid, vm.info.name.as_str(), vm.info.platform);
        tracing::info!(vm = vm.id, name, pid, platform, "vm found");
        self.event(
            "vm_started",
            format!("vm/{}", vm.id),
            format!("{name} runs in process {pid} ({platform})"),
        );
        let number = self.numbers.take(Instant::now());
        Tracked::new(vm.clone(), number, clock::monotonic_ns())
    }

    fn stopped(&mut self, mut tracked: Tracked<P>) {
        let (id, name, pid) = (
            tracked.vm.id.clone(),
            tracked.vm.info.name.clone(),
            tracked.vm.key.pid,
        );
        tracing::info!(vm = id, name, pid, "vm gone");
        self.event(
            "vm_stopped",
            format!("vm/{id}"),
            format!("{name} in process {pid} ended"),
        );
        tracked.end(&mut self.source);
        self.ended.push(tracked);
    }

    fn event(&mut self, kind: &str, subject: String, detail: String) {
        let ts = clock::micros(clock::wall());
        self.events.push(EventRow {
            ts,
            host: self.host.clone(),
            kind: kind.into(),
            subject,
            detail,
        });
    }
}

/// The VMs of a window: those that live and those that ended in it.
fn scene<'a, P: HostSource>(
    live: &'a BTreeMap<VmKey, Tracked<P>>,
    ended: &'a [Tracked<P>],
) -> Scene<'a> {
    let of = |live| {
        move |tracked: &'a Tracked<P>| SceneVm {
            vm: &tracked.vm,
            index: tracked.number,
            live,
        }
    };
    Scene {
        vms: live
            .values()
            .map(of(true))
            .chain(ended.iter().map(of(false)))
            .collect(),
    }
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;

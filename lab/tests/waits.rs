//! Real guests and what headroom says of their waits: who took the CPU, the
//! four states, and whose each ns of a CPU was.

use std::io::Write as _;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headroom_agent::clock;
use headroom_agent::sampler::{Sampler, SamplerOptions, Window};
use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::rows::VcpuRow;
use headroom_lab::spec::Spec;
use headroom_lab::truth;
use headroom_lab::{Guest, Stage};
use headroom_tests::require::{Need, have};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The guests under test outweigh all other load.
const WEIGHT: u32 = 3000;

/// The reader outweighs even the guests: tables that are read one after the
/// other are to be of one moment. Of this thread alone.
const READER_NICE: i32 = -20;

fn stage() -> (Stage, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    (Stage::set(WEIGHT).expect("a stage"), turn)
}

/// A sampler whose windows end when asked.
struct Meter(Sampler);

impl Meter {
    fn attach() -> Self {
        // Below 0 ends in a permission error for whoever is not root: then the
        // host must be calm.
        let _ = rustix::process::setpriority_process(None, READER_NICE);
        let mut sampler = Sampler::new(SamplerOptions::new("test".into()));
        assert_eq!(sampler.degraded(), None);
        sampler.tick();
        Self(sampler)
    }

    /// The window since the last call.
    fn cut(&mut self) -> Window {
        self.0.tick();
        self.0.window(clock::micros(clock::wall()))
    }

    /// Why the kernel does not sample the concurrency; `None` where it does.
    fn agent_samples(&self) -> Option<String> {
        let mut families = self.0.families().into_iter();
        let family = families.find(|f| f.family == "concurrency");
        let family = family.expect("the family");
        (family.source.as_deref() != Some("perf_event")).then(|| family.reason.expect("a reason"))
    }

    /// A window of that length, sampled as the agent does.
    fn window(&mut self, time: Duration) -> Window {
        let end = Instant::now() + time;
        let mut tick = Instant::now() + Duration::from_secs(1);
        self.cut();
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            self.0.sample();
            if Instant::now() >= tick {
                self.0.tick();
                tick += Duration::from_secs(1);
            }
        }
        self.cut()
    }
}

/// Whether `HEADROOM_REQUIRE` names it.
fn required(need: &str) -> bool {
    let required = std::env::var("HEADROOM_REQUIRE").unwrap_or_default();
    required.split(',').any(|r| r == need)
}

/// Lets all threads of a guest run on one CPU only.
fn pin(guest: &Guest, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    for tid in truth::threads(guest.pid(), "").expect("threads") {
        let tid = Pid::from_raw(tid.cast_signed());
        // A worker may have ended by now.
        let _ = sched_setaffinity(tid, &set);
    }
}

fn spec(name: &str, load: u8) -> Spec {
    Spec {
        load,
        ..Spec::new(name)
    }
}

fn vcpu<'a>(window: &'a Window, vm: &str) -> &'a VcpuRow {
    let row = window.vcpus.iter().find(|row| row.vm_name == vm);
    row.expect("a row of the vCPU")
}

#[expect(clippy::cast_precision_loss, reason = "ns of a window of seconds")]
fn part(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

/// Sum of a column of a table of the window.
fn sum(window: &Window, table: &str, column: &str) -> i64 {
    let chunks = window.chunks();
    let of = |chunk: &Chunk| {
        let at = chunk.table.position(column).expect("a column");
        match &chunk.columns[at] {
            ColumnData::Int(values) => values.iter().flatten().sum::<i64>(),
            other => panic!("{other:?}"),
        }
    };
    let tables = chunks.iter().filter(|chunk| chunk.table.name == table);
    tables.map(of).sum::<i64>()
}

/// Rows 20 of 20: four neighbours on the victim's CPU, another one noisy each
/// time, the others at 3 %.
#[test]
fn the_noisy_one_is_named_first_each_time() {
    if !have("the_noisy_one_is_named", &[Need::Kvm, Need::Bpf]) {
        return;
    }
    let (stage, _turn) = stage();
    let victim = stage.guest(&spec("victim", 60)).expect("a guest");
    let neighbours: Vec<Guest> = (1..=4)
        .map(|n| {
            stage
                .guest(&spec(&format!("neighbour{n}"), 3))
                .expect("a guest")
        })
        .collect();
    for guest in neighbours.iter().chain([&victim]) {
        pin(guest, 1);
    }
    let mut meter = Meter::attach();
    for round in 0..20 {
        let noisy = &neighbours[(round * 7 + round / 4) % 4];
        noisy.memory().set_load(100).expect("load");
        std::thread::sleep(Duration::from_millis(200));
        let window = meter.window(Duration::from_millis(1200));
        noisy.memory().set_load(3).expect("load");
        let ready = vcpu(&window, "victim").ready_ns;
        let rows: Vec<_> = window
            .blame
            .iter()
            .filter(|row| row.vm_name == "victim" && row.culprit_kind != "throttle")
            .collect();
        let first = rows.first().expect("a culprit");
        let said = format!("round {round}, noisy {}: {rows:#?}", noisy.name());
        assert_eq!(first.culprit_name, noisy.name(), "{said}");
        assert_eq!(first.culprit_kind, "vm", "{said}");
        assert!(first.share > 0.5, "{said}");
        assert!(part(ready, first.window_ns) > 0.05, "{said}");
        let blamed: i64 = rows.iter().map(|row| row.blame_ns).sum();
        assert!(
            (part(blamed, ready) - 1.0).abs() < 0.02,
            "{blamed} of {ready}: {said}"
        );
    }
}

/// Busy all the time with a quota of a third of a CPU, busy without, asleep.
#[test]
fn the_four_states_are_kept_apart() {
    if !have("the_four_states", &[Need::Kvm, Need::Bpf]) {
        return;
    }
    let (stage, _turn) = stage();
    let limited = stage.guest(&spec("limited", 100)).expect("a guest");
    let sleeper = stage.guest(&spec("sleeper", 0)).expect("a guest");
    let group = limited.group().expect("a cgroup of its own");
    group.quota(33_000, 100_000).expect("a quota");
    pin(&limited, 0);
    pin(&sleeper, 1);
    let mut meter = Meter::attach();
    meter.cut();
    let waited = || truth::times(sleeper.pid(), truth::VCPUS).expect("schedstat");
    let before = waited();
    let window = meter.window(Duration::from_secs(4));
    let waited = waited().since(before);
    for row in &window.vcpus {
        let states = row.run_ns + row.ready_ns + row.throttled_ns.expect("known") + row.wait_ns;
        assert_eq!(states, row.window_ns, "{row:?}");
    }
    let row = vcpu(&window, "limited");
    let throttled = part(row.throttled_ns.expect("known"), row.window_ns);
    assert!((throttled - 0.67).abs() < 0.05, "{row:?}");
    assert!(
        (part(row.run_ns, row.window_ns) - 0.33).abs() < 0.05,
        "{row:?}"
    );
    assert!(row.ready_ratio < 0.05, "{row:?}");
    let row = vcpu(&window, "sleeper");
    // It sleeps, and is ready for as long as the kernel says: next to nothing
    // on a host that has nothing else to do.
    let ready = i64::try_from(waited.ready_ns).expect("some ms");
    assert!(
        part((row.ready_ns - ready).abs(), row.window_ns) < 0.01,
        "{ready}: {row:?}"
    );
    assert!(part(row.wait_ns, row.window_ns) > 0.5, "{row:?}");
    assert_eq!(row.throttled_ns, Some(0), "{row:?}");
    let throttle = |vm: &str| {
        let rows = window.blame.iter();
        rows.filter(|row| row.vm_name == vm && row.culprit_kind == "throttle")
            .count()
    };
    assert_eq!((throttle("limited"), throttle("sleeper")), (1, 0));
}

/// Run + overhead + idle = capacity, on each CPU and together.
#[test]
fn each_ns_of_a_cpu_has_one_owner() {
    if !have("each_ns_of_a_cpu", &[Need::Kvm, Need::Bpf]) {
        return;
    }
    let (stage, _turn) = stage();
    let _guests: Vec<Guest> = [("full", 100), ("half", 50), ("some", 20)]
        .map(|(name, load)| stage.guest(&spec(name, load)).expect("a guest"))
        .into();
    let mut meter = Meter::attach();
    let window = meter.window(Duration::from_secs(3));
    let host = window.hosts.first().expect("a host");
    let owned = sum(&window, "cpu_owners", "time_ns");
    let capacity = host.window_ns * host.threads;
    assert!(
        (part(owned, capacity) - 1.0).abs() < 0.01,
        "{owned} of {capacity}"
    );
    // Two ways to the same: threads that ran, CPUs that were theirs. What
    // interrupts took is no guest's there.
    let ran: i64 = window.vcpus.iter().map(|row| row.run_ns).sum();
    let theirs = sum(&window, "cpus", "vcpu_ns");
    let interrupts = sum(&window, "cpus", "interrupt_ns");
    assert!(theirs <= ran + ran / 100, "{theirs} of {ran}");
    assert!(
        theirs + interrupts >= ran - ran / 100,
        "{theirs} + {interrupts} of {ran}"
    );
}

/// A neighbour that is there for 1 of 20 windows: the mean hides what the
/// quantiles show.
#[test]
fn a_rare_burst_shows_in_the_tail_only() {
    if !have("a_rare_burst", &[Need::Kvm, Need::Bpf]) {
        return;
    }
    let (stage, _turn) = stage();
    let victim = stage.guest(&spec("victim", 100)).expect("a guest");
    let burst = stage.guest(&spec("burst", 0)).expect("a guest");
    pin(&victim, 1);
    pin(&burst, 1);
    let mut meter = Meter::attach();
    let mut ratios = Vec::new();
    for n in 0..20 {
        burst
            .memory()
            .set_load(if n == 13 { 100 } else { 0 })
            .expect("load");
        std::thread::sleep(Duration::from_millis(50));
        let window = meter.window(Duration::from_millis(400));
        ratios.push(vcpu(&window, "victim").ready_ratio);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    assert!(ratios[10] < 0.02, "p50 {ratios:?}");
    assert!(ratios[19] >= 0.45, "p99 {ratios:?}");
}

/// Two vCPUs at half load each: at times none, one and both are active, and
/// the times add up. Also beside tasks that leave the agent a CPU only when
/// the guests sleep.
#[test]
fn concurrency_is_a_distribution() {
    if !have("concurrency", &[Need::Kvm, Need::Bpf]) {
        return;
    }
    let (stage, _turn) = stage();
    let spec = Spec {
        vcpus: 2,
        ..spec("pair", 50)
    };
    let _pair = stage.guest(&spec).expect("a guest");
    let mut meter = Meter::attach();
    if let Some(reason) = meter.agent_samples() {
        // A fair sample is not to be had then.
        assert!(!required("bpf"), "{reason}");
        let _ = writeln!(std::io::stderr(), "skip: concurrency: {reason}");
        return;
    }
    println!("{}", sampled_as_counted(&mut meter, "quiet"));
    let _hogs = [Hog::start(), Hog::start(), Hog::start()];
    println!("{}", sampled_as_counted(&mut meter, "beside hogs"));
}

/// Gives both means.
fn sampled_as_counted(meter: &mut Meter, when: &str) -> String {
    let window = meter.window(Duration::from_secs(6));
    let rows = concurrency(&window, "pair");
    let said = format!("{when}: {rows:?}");
    assert!(rows.iter().all(|(n, _)| (0..=2).contains(n)), "{said}");
    let whole: i64 = rows.iter().map(|(_, time)| time).sum();
    let mean: i64 = rows.iter().map(|(n, time)| n * time).sum();
    let window_ns = vcpu(&window, "pair").window_ns;
    // No more is missing than some snapshots at both ends.
    assert!((part(whole, window_ns) - 1.0).abs() < 0.1, "{said}");
    // Both sampled and counted: run + ready of both over the window.
    let pair = window.vcpus.iter().filter(|row| row.vm_name == "pair");
    let counted: i64 = pair.map(|row| row.run_ns + row.ready_ns).sum();
    let (sampled, counted) = (part(mean, whole), part(counted, window_ns));
    // 126 samples. Were they independent, the standard error of their mean
    // would be 0.063 where the two vCPUs are active independently, and 0.089
    // where they are always so together. They fall evenly on the 10 ms of the
    // guest's load: measured were 0.014, and 0.04 at a load average of 14.
    // A sample by the agent beside hogs is off by 0.5 and more.
    let said = format!("sampled {sampled:.3}, counted {counted:.3}, {said}");
    assert!((sampled - counted).abs() < 0.25, "{said}");
    said
}

/// Rows of `vm_concurrency` of a VM: vCPUs active, and for how long.
fn concurrency(window: &Window, vm: &str) -> Vec<(i64, i64)> {
    let of = |chunk: &Chunk| {
        let column = |name| &chunk.columns[chunk.table.position(name).expect("a column")];
        let names = match column("vm_name") {
            ColumnData::Text(names) => names.clone(),
            other => panic!("{other:?}"),
        };
        let ints = |name| match column(name) {
            ColumnData::Int(values) => values.iter().map(|v| v.expect("a figure")).collect(),
            other => panic!("{other:?}"),
        };
        let (active, time): (Vec<_>, Vec<_>) = (ints("active"), ints("time_ns"));
        let rows = names.into_iter().zip(active.into_iter().zip(time));
        rows.filter(|(name, _)| name.as_deref() == Some(vm))
            .map(|(_, row)| row)
            .collect::<Vec<_>>()
    };
    let chunks = window.chunks();
    let tables = chunks.iter().filter(|c| c.table.name == "vm_concurrency");
    tables.flat_map(of).collect()
}

/// A task that never sleeps, of usual weight; killed when dropped.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        let mut shell = Command::new("sh");
        let busy = shell.args(["-c", "while :; do :; done"]);
        Self(busy.spawn().expect("a shell"))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

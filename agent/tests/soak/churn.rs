//! Guests that come and go, 1000 a minute, while the sampler looks once a
//! second: every figure must be its own VM's, and nothing may be left behind.
//!
//! `HEADROOM_CHURN` says for how long, "10m" for the full measure.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use headroom_agent::sampler::{
    FamilyStatus, Frame, Observer, Sampler, SamplerOptions, Scene, Window,
};
use headroom_core::batch::Chunk;
use headroom_core::rows::VcpuRow;
use headroom_core::units::parse_duration;

use crate::bare::Plan;
use crate::herd::{Bare, Herd, index, uuid};
use crate::weight::Weight;
use crate::{alone, guests_possible, proc, wait};
use headroom_tests::require::lacks;

/// 1000 a minute.
const PERIOD: Duration = Duration::from_millis(60);
/// Each guest is seen by two ticks: 33 live at once.
const LIFE: Duration = Duration::from_secs(2);
/// Time on a CPU of each vCPU, thousandths: 0.66 of a CPU for all.
const SHARE: u64 = 20;
const TICK: Duration = Duration::from_secs(1);
const TICKS_A_WINDOW: u32 = 5;
/// Between the truth's reading and the guest's end.
const SLACK_NS: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// Its process returns.
    Orderly,
    /// SIGKILL; the next guest gets the pid that became free.
    KilledAndReused,
}

#[test]
fn guests_that_come_and_go() {
    churn(Ending::Orderly, duration());
}

#[test]
fn killed_guests_whose_pids_come_again_at_once() {
    churn(Ending::KilledAndReused, duration() / 2);
}

fn duration() -> Duration {
    let text = std::env::var("HEADROOM_CHURN").unwrap_or_else(|_| "30s".into());
    parse_duration(&text).expect("HEADROOM_CHURN")
}

fn churn(ending: Ending, duration: Duration) {
    let (_alone, _weight) = (alone(), Weight::heaviest());
    if !guests_possible() {
        return;
    }
    let log = tempfile::NamedTempFile::new().expect("tempfile");
    let file = log.reopen().expect("log");
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .finish();
    let _warnings = tracing::subscriber::set_default(warnings);
    let mut sampler = Sampler::new(SamplerOptions::new("here".into()));
    if let Some(reason) = sampler.degraded() {
        return lacks("bpf", reason);
    }
    let numbers = Arc::new(Mutex::new(Numbers::default()));
    sampler.observe(Box::new(Watch(numbers.clone())));
    let files = proc::files();
    let mut watch = Records::new(duration);
    let made = thread::scope(|scope| {
        let maker = scope.spawn(|| make(ending, duration));
        while !maker.is_finished() {
            watch.second(&mut sampler);
        }
        maker.join().expect("maker")
    });
    wait("all guests gone", || {
        watch.second(&mut sampler);
        watch.of_ours == 0
    });
    watch.close(&mut sampler);
    all_given_back(&mut sampler);
    assert_eq!(proc::files(), files, "open files");
    let numbers = numbers.lock().expect("numbers");
    assert!(numbers.problems.is_empty(), "{:?}", numbers.problems);
    println!(
        "{ending:?}, {duration:?}: highest VM number {}",
        numbers.highest
    );
    watch.check(&made);
    // Those about VMs of others are not ours to judge.
    let log = std::fs::read_to_string(log.path()).expect("log");
    let ours = |line: &&str| line.contains("slot") || line.contains("thread not registered");
    assert_eq!(log.lines().find(ours), None);
}

/// A guest as its maker knew it at its end.
struct Life {
    pid: u32,
    tid: u32,
    run_ns: u64,
}

struct Made {
    lives: Vec<Life>,
    time: Duration,
    reused: usize,
}

/// Starts a guest each 60 ms and ends those of two seconds.
fn make(ending: Ending, duration: Duration) -> Made {
    let herd = Herd::new(1, Plan::Busy(SHARE));
    let (mut alive, mut lives, mut reused) = (VecDeque::new(), Vec::new(), 0);
    let start = Instant::now();
    let mut due = start;
    for n in 0.. {
        due += PERIOD;
        if due > start + duration {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let old = alive.pop_front_if(|(since, _): &mut (Instant, Bare)| since.elapsed() > LIFE);
        let freed = old.map(|(_, guest)| finish(ending, guest, &mut lives));
        if let (Ending::KilledAndReused, Some(pid)) = (ending, freed) {
            std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
                .expect("ns_last_pid");
        }
        let guest = herd.start(n);
        reused += usize::from(freed == Some(guest.pid()));
        alive.push_back((Instant::now(), guest));
    }
    let time = start.elapsed();
    for (_, guest) in alive {
        finish(ending, guest, &mut lives);
    }
    Made {
        lives,
        time,
        reused,
    }
}

/// Ends the guest and notes who it was; gives its pid.
fn finish(ending: Ending, guest: Bare, lives: &mut Vec<Life>) -> u32 {
    wait("a vCPU", || guest.vcpus().len() == 1);
    let (pid, tid) = (guest.pid(), guest.vcpus()[0]);
    let [run_ns, ..] = proc::schedstat(tid).expect("schedstat of a live vCPU");
    assert_eq!(guest.index, lives.len());
    lives.push(Life { pid, tid, run_ns });
    match ending {
        Ending::Orderly => guest.end(),
        Ending::KilledAndReused => guest.kill(),
    }
    pid
}

/// What the sampler said, checked against the lives at the end.
struct Records {
    start: Instant,
    ticks: u32,
    tick_ns: Vec<u64>,
    rows: Vec<Seen>,
    of_ours: usize,
    settled: Duration,
    /// Resident KiB and open files once settled, and at the last window.
    first: Option<(u64, usize)>,
    last: (u64, usize),
}

/// One row, without what a soak of 10 minutes would fill the memory with.
struct Seen {
    index: usize,
    pid: i64,
    tid: i64,
    sum: Sum,
}

/// Time of one vCPU or of several.
#[derive(Default)]
struct Sum {
    window_ns: i64,
    run_ns: i64,
    ready_ns: i64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.window_ns += other.window_ns;
        self.run_ns += other.run_ns;
        self.ready_ns += other.ready_ns;
    }

    /// Time on a CPU as a part of what was asked for, without that spent
    /// waiting.
    fn busy(&self) -> f64 {
        self.run_ns as f64 / (self.window_ns - self.ready_ns) as f64 * 1000.0 / SHARE as f64
    }

    /// Of one guest: more than it ran in its life, as if another's were in it.
    fn is_over(&self, life: &Life) -> bool {
        self.run_ns > i64::try_from(life.run_ns + SLACK_NS).expect("ns")
    }

    /// Ran for less than a fifth of what was asked, although other load did
    /// not keep it from running.
    fn is_slow(&self) -> bool {
        self.window_ns - self.ready_ns > 900_000_000 && self.busy() < 0.2
    }
}

impl Records {
    fn new(duration: Duration) -> Self {
        Self {
            start: Instant::now(),
            ticks: 0,
            tick_ns: Vec::new(),
            rows: Vec::new(),
            of_ours: 0,
            settled: (duration / 3).min(Duration::from_secs(60)),
            first: None,
            last: (0, 0),
        }
    }

    /// Sleeps until the next second, ticks, and at times ends a window.
    fn second(&mut self, sampler: &mut Sampler) {
        self.ticks += 1;
        let due = self.start + TICK * self.ticks;
        while Instant::now() < due {
            thread::sleep(Duration::from_millis(50));
            sampler.sample();
        }
        let start = Instant::now();
        sampler.tick();
        let took = u64::try_from(start.elapsed().as_nanos()).expect("ns");
        self.tick_ns.push(took);
        if self.ticks.is_multiple_of(TICKS_A_WINDOW) {
            self.close(sampler);
        }
    }

    fn close(&mut self, sampler: &mut Sampler) {
        let window = sampler.window(i64::from(self.ticks));
        let host = &window.hosts[0];
        assert_eq!(host.unregistered, 0);
        self.of_ours = 0;
        for row in &window.vms {
            self.of_ours += usize::from(index(&row.vm_name).is_some());
        }
        for row in &window.vcpus {
            self.take(row, sampler.source(), &window);
        }
        self.last = (proc::rss_kib(std::process::id()), proc::files());
        if self.first.is_none() && self.start.elapsed() > self.settled {
            self.first = Some(self.last);
        }
    }

    fn take(&mut self, row: &VcpuRow, source: &str, window: &Window) {
        // Guests of others may run on this host.
        let Some(index) = index(&row.vm_name) else {
            return;
        };
        assert_eq!(
            (row.vm_id.as_str(), row.vcpu),
            (&*uuid(index), 0),
            "{row:?}"
        );
        // A thread registered twice would be measured by schedstat.
        assert_eq!(row.source, source, "{row:?}");
        let vm = window.vms.iter().find(|vm| vm.vm_id == row.vm_id);
        let vm = vm.expect("row of the VM");
        assert_eq!((vm.vcpus, &vm.vm_name), (1, &row.vm_name), "{vm:?}");
        assert_eq!((vm.run_ns, vm.ready_ns), (row.run_ns, row.ready_ns));
        self.rows.push(Seen {
            index,
            pid: vm.pid,
            tid: row.tid,
            sum: Sum {
                window_ns: row.window_ns,
                run_ns: row.run_ns,
                ready_ns: row.ready_ns,
            },
        });
    }

    fn check(&mut self, made: &Made) {
        let sums = self.by_guest(&made.lives);
        let mut total = Sum::default();
        sums.iter().for_each(|sum| total.add(sum));
        let (guests, seen) = (sums.len(), sums.iter().filter(|s| s.window_ns > 0).count());
        println!(
            "{guests} guests in {:?}, {} times with the pid before; {} rows of {seen} guests, busy {:.3} of what was asked",
            made.time,
            made.reused,
            self.rows.len(),
            total.busy(),
        );
        self.print_cost();
        // Seen: 1 of 10 000 that hardly ran, and up to 1 of 500 with more run
        // time than the kernel's, in runs of 500. The likely cause of the
        // latter, not proven: a switch-out that the kernel does not report
        // (see `rates`) counts as run until the next event. Rows of a wrong VM
        // would be many.
        let slow = sums.iter().filter(|sum| sum.is_slow()).count();
        let over = sums.iter().zip(&made.lives);
        let over = over.filter(|(sum, life)| sum.is_over(life)).count();
        println!("{slow} hardly ran, {over} ran more than they did");
        assert!((slow + over) * 100 <= guests, "of {guests}");
        assert!(seen > guests / 2, "{seen} of {guests} guests seen");
        assert!((0.5..1.5).contains(&total.busy()));
    }

    /// Sums of each guest's rows, which must be its own.
    fn by_guest(&self, lives: &[Life]) -> Vec<Sum> {
        let mut sums: Vec<Sum> = lives.iter().map(|_| Sum::default()).collect();
        for row in &self.rows {
            let life = &lives[row.index];
            let ids = (i64::from(life.pid), i64::from(life.tid));
            assert_eq!((row.pid, row.tid), ids, "guest {}", row.index);
            sums[row.index].add(&row.sum);
        }
        sums
    }

    fn print_cost(&mut self) {
        self.tick_ns.sort_unstable();
        let at = |percent: usize| {
            let place = (self.tick_ns.len() - 1) * percent / 100;
            self.tick_ns[place] as f64 / 1e6
        };
        println!("tick {:.1} ms, p99 {:.1} ms", at(50), at(99));
        let first = self.first.unwrap_or(self.last);
        println!(
            "resident KiB and files: {first:?}, at the end {:?}",
            self.last
        );
        let (grown, more) = (
            self.last.0.saturating_sub(first.0),
            self.last.1.saturating_sub(first.1),
        );
        // The records of this test are 40 bytes a row.
        assert!(grown < 4096, "grew by {grown} KiB");
        assert!(more < 10, "{more} more files");
    }
}

/// No slot is left but those of others' guests.
fn all_given_back(sampler: &mut Sampler) {
    wait("all slots free", || {
        sampler.tick();
        let window = sampler.window(0);
        let others = window
            .vms
            .iter()
            .filter_map(|vm| u32::try_from(vm.pid).ok());
        let threads: usize = others.map(|pid| proc::threads(pid).len()).sum();
        let used = window.hosts[0].slots_used;
        println!("{used:?} slots used, {threads} threads of other VMs");
        used.is_some_and(|used| usize::try_from(used).is_ok_and(|used| used <= threads))
    });
}

/// The numbers that VMs have in the probes' maps.
#[derive(Default)]
struct Numbers {
    highest: u16,
    problems: BTreeSet<String>,
}

struct Watch(Arc<Mutex<Numbers>>);

impl Observer for Watch {
    fn status(&self) -> Vec<FamilyStatus> {
        Vec::new()
    }

    fn tick(&mut self, scene: &Scene<'_>) {
        let mut numbers = self.0.lock().expect("numbers");
        let mut taken = BTreeSet::new();
        for vm in &scene.vms {
            match vm.index {
                Some(index) if taken.insert(index) => numbers.highest = numbers.highest.max(index),
                Some(index) => drop(numbers.problems.insert(format!("{index} twice"))),
                None => drop(numbers.problems.insert("all taken".into())),
            }
        }
    }

    fn window(&mut self, _: &Frame<'_>, _: &Scene<'_>) -> Vec<Chunk> {
        Vec::new()
    }
}

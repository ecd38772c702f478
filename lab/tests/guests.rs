//! Real guests: the payload does what its knobs say and tells the truth.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headroom_lab::spec::{Aio, Backing, Cache, Disk, Layout, Spec};
use headroom_lab::truth::{self, IOTHREADS};
use headroom_lab::{Figures, Guest, Stage, oversubscribe};
use headroom_tests::require::{Need, have};

/// The guests under test outweigh all other load.
const WEIGHT: u32 = 3000;
/// Other load on the host can only add to a latency and take from a rate, so
/// the best of some windows is the guest's own.
const WINDOWS: usize = 8;

/// One test at a time: on two CPUs guests of several would bend each other's
/// figures. A test that failed has no claim on the next one.
fn stage() -> (Stage, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    (Stage::set(WEIGHT).expect("a stage"), turn)
}

fn with_disk(disk: Disk) -> Spec {
    Spec {
        disk: Some(disk),
        ..Spec::new("disk")
    }
}

fn null(latency_ms: u64) -> Backing {
    Backing::Null {
        latency: Duration::from_millis(latency_ms),
    }
}

fn figures(guest: &Guest) -> Figures {
    guest.memory().figures().expect("figures")
}

/// (requests a second, mean ms) of one window.
#[expect(clippy::cast_precision_loss, reason = "some hundred requests")]
fn window(guest: &Guest, time: Duration) -> (f64, f64) {
    let (then, begin) = (figures(guest), Instant::now());
    std::thread::sleep(time);
    let now = figures(guest);
    let done = now.done.since(&then.done);
    assert_eq!(now.errors, 0);
    let rate = done.count as f64 / begin.elapsed().as_secs_f64();
    (rate, done.mean_ns().expect("requests were done") / 1e6)
}

#[test]
fn a_disk_of_20_ms_takes_20_ms_at_the_asked_rate() {
    if !have("a_disk_of_20_ms", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let guest = stage
        .guest(&with_disk(Disk::new(null(20), 40)))
        .expect("a guest");
    let mut seen = Vec::new();
    for _ in 0..WINDOWS {
        let (rate, mean_ms) = window(&guest, Duration::from_secs(1));
        // A timer of the host that ends late adds; none ends early.
        assert!(mean_ms >= 20.0, "{mean_ms} ms");
        assert!(rate < 43.0, "{rate} a second");
        seen.push((rate, mean_ms));
        if mean_ms <= 23.0 && rate > 37.0 {
            return;
        }
    }
    panic!("never 20-23 ms at 40 requests a second: {seen:?}");
}

#[test]
fn the_depth_bounds_what_is_in_flight() {
    if !have("the_depth_bounds", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let disk = Disk {
        depth: 4,
        ..Disk::new(null(20), 0)
    };
    let guest = stage.guest(&with_disk(disk)).expect("a guest");
    let (rate, mean_ms) = window(&guest, Duration::from_secs(2));
    // Little's law: in flight = rate * time. The window's ends cut 4 requests.
    let in_flight = rate * mean_ms / 1e3;
    assert!((3.8..=4.2).contains(&in_flight), "{in_flight} in flight");
}

#[test]
fn each_kick_wakes_the_iothread() {
    if !have("each_kick_wakes", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let guest = stage
        .guest(&with_disk(Disk::new(null(5), 50)))
        .expect("a guest");
    let slices = || {
        truth::times(guest.pid(), IOTHREADS)
            .expect("an iothread")
            .slices
    };
    let (kicks_then, slices_then) = (figures(&guest), slices());
    std::thread::sleep(Duration::from_secs(2));
    let (slices, now) = (slices() - slices_then, figures(&guest));
    let kicks = u64::from(now.kicks - kicks_then.kicks);
    let done = now.done.since(&kicks_then.done).count;
    assert!(kicks.abs_diff(done) <= 1, "{kicks} kicks, {done} requests");
    // It sleeps between the kick and the end of the delay: two a request, less
    // the one that the window may cut off at either end.
    assert!(slices + 2 >= 2 * kicks && kicks > 0, "{slices} for {kicks}");
    let interrupts = u64::from(now.interrupts - kicks_then.interrupts);
    assert!(interrupts.abs_diff(done) <= 1, "{interrupts} for {done}");
}

#[test]
fn a_file_is_written_and_read_through_the_main_loop() {
    if !have("a_file_is_written", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let disk = Disk {
        iothread: false,
        writes: 50,
        ..Disk::new(
            Backing::File {
                aio: Aio::Threads,
                cache: Cache::Writeback,
            },
            0,
        )
    };
    let guest = stage.guest(&with_disk(disk)).expect("a guest");
    // Enough that half of them are not written is as good as impossible.
    let end = Instant::now() + Duration::from_secs(20);
    while figures(&guest).done.count < 400 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let seen = figures(&guest);
    let share = f64::from(seen.writes) / f64::from(u32::try_from(seen.done.count).expect("few"));
    assert!((0.3..=0.7).contains(&share), "{seen:?}");
    assert_eq!(seen.errors, 0);
    let iothreads = truth::threads(guest.pid(), IOTHREADS).expect("runs");
    assert!(iothreads.is_empty());
}

#[test]
fn every_vcpu_drives_its_own_queue_or_disk() {
    if !have("every_vcpu_drives", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    for layout in [Layout::QueuePerVcpu, Layout::DiskPerVcpu] {
        let disk = Disk {
            layout,
            ..Disk::new(null(20), 0)
        };
        let spec = Spec {
            vcpus: 2,
            ..with_disk(disk)
        };
        let guest = stage.guest(&spec).expect("a guest");
        let (rate, mean_ms) = window(&guest, Duration::from_secs(2));
        // One in flight of each: twice what one queue could do.
        let in_flight = rate * mean_ms / 1e3;
        assert!((1.8..=2.2).contains(&in_flight), "{layout:?}: {in_flight}");
    }
}

#[test]
fn the_guest_dirties_as_much_memory_as_it_is_told() {
    if !have("the_guest_dirties", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let spec = Spec {
        memory_mib: 64,
        ..Spec::new("dirty")
    };
    let guest = stage.guest(&spec).expect("a guest");
    guest.memory().set_touch(32, 100_000).expect("a knob");
    let end = Instant::now() + Duration::from_secs(20);
    while guest.memory().touched().expect("figures").count < 3 * 32 * 256 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    // 32 of the 48 MiB and not more, though it went round three times. Huge
    // pages may reach 2 MiB beyond.
    let kib = anonymous_kib(guest.pid(), 48 << 20).expect("the mapping");
    assert!((32 * 1024..=34 * 1024).contains(&kib), "{kib} KiB");
}

/// Anonymous memory in a process's mapping of that size, by smaps.
fn anonymous_kib(pid: u32, bytes: u64) -> Option<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let mut lines = smaps.lines();
    lines.find(|l| l.starts_with("Size:") && kib(l) == Some(bytes >> 10))?;
    kib(lines.find(|l| l.starts_with("Anonymous:"))?)
}

#[test]
fn nothing_is_left_of_a_guest() {
    if !have("nothing_is_left", &[Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let guest = stage.guest(&Spec::new("gone")).expect("a guest");
    let process = format!("/proc/{}", guest.pid());
    let cgroups = std::fs::read_to_string(format!("{process}/cgroup")).expect("runs");
    assert!(cgroups.contains("headroom-lab."), "{cgroups}");
    let groups: Vec<String> = cgroups
        .lines()
        .filter_map(|l| l.splitn(3, ':').nth(2))
        .filter(|path| path.contains("headroom-lab."))
        .map(str::to_owned)
        .collect();
    drop(guest);
    drop(stage);
    assert!(!Path::new(&process).exists());
    for group in groups {
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu"] {
            assert!(!Path::new(&format!("{root}{group}")).exists(), "{group}");
        }
    }
}

#[test]
fn four_spinning_guests_wait_as_schedstat_says() {
    if !have("four_spinning_guests", &[Need::Bpf, Need::Kvm]) {
        return;
    }
    let (stage, _turn) = stage();
    let report = tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(oversubscribe(&stage, &[4], Duration::from_secs(4)))
        .expect("figures");
    let figure = |column| report.tables[0].figures(column)[0].expect("a figure");
    let (ours, schedstat) = (figure("headroom_pct"), figure("schedstat_pct"));
    assert!((ours - schedstat).abs() <= 3.0, "{ours} and {schedstat}");
    // KVM brings steal up to date when a vCPU is switched in, so it lacks at
    // most the waits that are open at the window's ends.
    let steal = figure("steal_pct");
    assert!((steal - schedstat).abs() <= 3.0, "{steal} and {schedstat}");
    let theory = figure("theory_pct");
    assert!(schedstat >= theory - 3.0, "{schedstat} of {theory}");
}

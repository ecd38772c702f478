//! Disks of VMs on this host's kernel, against devices of known delay.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests")]

mod disk;
mod guest;
mod peer;
mod rows;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use disk::Disk;
use guest::Guest;
use headroom_agent::probe::AttachPolicy;
use headroom_agent::sampler::{Sampler, SamplerOptions};
use headroom_tests::require::lacks;
use rows::{Row, rows};

const DELAY: Duration = Duration::from_millis(20);

/// One test at a time: they count what the whole host does.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a condition, bounded.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "waited 30 s: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// A sampler whose block family is attached.
fn sampler(attach: AttachPolicy) -> Option<Sampler> {
    let options = SamplerOptions {
        attach,
        ..SamplerOptions::new("here".into())
    };
    let sampler = Sampler::new(options);
    if let Some(reason) = sampler.degraded() {
        lacks("bpf", reason);
        return None;
    }
    Some(sampler)
}

/// What KVM guests need; `None` after a printed reason.
fn kvm() -> Option<()> {
    let kvm = std::fs::OpenOptions::new().write(true).open("/dev/kvm");
    let problem = kvm
        .map(drop)
        .map_err(|e| format!("/dev/kvm: {e}"))
        .and_then(|()| disk::run("qemu-system-x86_64", &["-version"]).map(drop));
    problem.map_err(|reason| lacks("kvm", reason)).ok()
}

/// Both disks; `None` after a printed reason.
fn disks() -> Option<(Disk, Disk)> {
    let made = Disk::slow(DELAY).and_then(|slow| Ok((slow, Disk::fast()?)));
    made.map_err(|reason| lacks("loop", reason)).ok()
}

/// Rows of table `vm_disks` from windows of a second, until `done` sees in one
/// window what it waits for.
fn until(sampler: &mut Sampler, what: &str, done: impl Fn(&[Row]) -> bool) -> Vec<Row> {
    let end = Instant::now() + Duration::from_secs(60);
    sampler.tick();
    sampler.window(0);
    loop {
        sleep(Duration::from_secs(1));
        sampler.tick();
        let found = rows(&sampler.window(1).more, "vm_disks");
        if done(&found) {
            return found;
        }
        assert!(Instant::now() < end, "waited 60 s: {what}: {found:#?}");
    }
}

fn reads<'a>(rows: &'a [Row], vm: &str, device: &str) -> Option<&'a Row> {
    rows.iter()
        .find(|r| r.text("vm_name") == vm && r.text("device") == device && r.text("op") == "read")
}

/// One guest on the slow disk and one on the fast one.
fn delay_shows_for_its_vm_alone(attach: AttachPolicy, options: &str) {
    let _alone = alone();
    let (Some(()), Some((slow, fast))) = (kvm(), disks()) else {
        return;
    };
    let Some(mut sampler) = sampler(attach) else {
        return;
    };
    let disk = |disk: &Disk| guest::Disk {
        file: disk.path().to_owned(),
        options: options.to_owned(),
    };
    let _slow = Guest::reading("late", &disk(&slow));
    let _fast = Guest::reading("prompt", &disk(&fast));
    let both = |rows: &[Row]| {
        let enough = |vm, device| {
            let row = reads(rows, vm, device).filter(|r| r.int("requests") >= 20);
            row.map(|r| r.hist("service_hist").1)
        };
        // On a host that is busy otherwise the process behind the disk is late
        // on top of the delay: wait for a window in which it is not.
        let late = enough("late", slow.name());
        late.is_some_and(near_the_delay) && enough("prompt", fast.name()).is_some()
    };
    // Requests from before the guests were found are the host's, and may end in
    // the first window with rows of theirs.
    until(&mut sampler, "both guests", both);
    let found = until(&mut sampler, "both guests read", both);
    let late = reads(&found, "late", slow.name()).expect("row");
    let prompt = reads(&found, "prompt", fast.name()).expect("row");
    let mode = late.hist("service_hist").1;
    println!(
        "{options}: late mode {} ms of {} requests, in flight {:.2}, await {:.2} ms, queue {} ns; \
         prompt mode {} us of {} requests",
        mode as f64 / 1e6,
        late.int("requests"),
        late.float("in_flight"),
        late.float("await_ns") / 1e6,
        late.int("queue_ns") / late.int("requests"),
        prompt.hist("service_hist").1 as f64 / 1e3,
        prompt.int("requests"),
    );
    assert!(near_the_delay(mode), "{late:?}");
    assert_eq!(late.int("bytes"), late.int("requests") * 512);
    // One request at a time. What was open at the window's edges makes the
    // difference between time at the device and time of the completed.
    let in_flight = late.float("in_flight");
    assert!(in_flight > 0.0 && in_flight < 1.05, "{late:?}");
    let at_device = in_flight * late.int("window_ns") as f64;
    let longest = late.hist("service_hist").0.quantile(1.0).expect("requests");
    let edge = longest as f64 * 1.25 + late.opt_int("oldest_ns").unwrap_or(0) as f64;
    let off = (at_device - late.int("service_ns") as f64).abs();
    assert!(off <= edge, "{off} {late:?}");
    assert!(prompt.hist("service_hist").1 < 15_000_000, "{prompt:?}");
    for row in &found {
        let strange = row.text("device") == slow.name() && row.text("vm_name") != "late";
        assert!(!strange, "{row:?}");
    }
}

/// 20 ± 2 ms.
fn near_the_delay(mode_ns: u64) -> bool {
    mode_ns.abs_diff(20_000_000) <= 2_000_000
}

#[test]
fn delay_with_native_aio() {
    delay_shows_for_its_vm_alone(AttachPolicy::Auto, "cache=none,aio=native");
}

#[test]
fn delay_with_threads() {
    delay_shows_for_its_vm_alone(AttachPolicy::Auto, "cache=none,aio=threads");
}

#[test]
fn delay_with_io_uring() {
    delay_shows_for_its_vm_alone(AttachPolicy::Auto, "cache=none,aio=io_uring");
}

#[test]
fn delay_by_raw_tracepoints() {
    delay_shows_for_its_vm_alone(AttachPolicy::RawTp, "cache=none,aio=threads");
}

/// The loop device's own requests to the disk below are made by a kernel
/// thread: only the cgroup tells whose they are.
#[test]
fn a_kernel_threads_requests_are_the_cgroups() {
    let _alone = alone();
    let (Some(()), Some((_, fast))) = (kvm(), disks()) else {
        return;
    };
    let Some(mut sampler) = sampler(AttachPolicy::Auto) else {
        return;
    };
    let options = "cache=none,aio=native".to_owned();
    let mut guest = Guest::reading(
        "grouped",
        &guest::Disk {
            file: fast.path().to_owned(),
            options,
        },
    );
    if !guest.own_cgroup("grouped") {
        lacks("cgroup", "no cgroup for block I/O can be made");
        return;
    }
    let below = |rows: &[Row]| {
        let upper = reads(rows, "grouped", fast.name()).map_or(0, |r| r.int("requests"));
        let lower = rows.iter().filter(|r| {
            r.text("vm_name") == "grouped"
                && r.text("device") != fast.name()
                && r.text("op") == "read"
        });
        let lower: i64 = lower.map(|r| r.int("requests")).sum();
        (upper, lower)
    };
    let found = until(&mut sampler, "requests of the disk below", |rows| {
        let (upper, lower) = below(rows);
        upper > 20 && lower * 10 > upper * 9
    });
    let (upper, lower) = below(&found);
    println!("{upper} reads of the loop device, {lower} of the disk below");
}

/// All that is read and written later goes through open files.
#[test]
fn nothing_is_missed_without_capabilities() {
    let _alone = alone();
    let (Some(()), Some((_, fast))) = (kvm(), disks()) else {
        return;
    };
    let Some(mut sampler) = sampler(AttachPolicy::Auto) else {
        return;
    };
    let options = "cache=none,aio=threads".to_owned();
    let file = fast.path().to_owned();
    let mut guest = Guest::reading("bare", &guest::Disk { file, options });
    guest.own_cgroup("bare");
    std::thread::scope(|scope| {
        // Capabilities belong to a thread: the other tests keep theirs.
        let dropped = scope.spawn(|| {
            headroom_agent::privilege::drop_all().expect("drop");
            let seen = |rows: &[Row]| reads(rows, "bare", fast.name()).is_some();
            let found = until(&mut sampler, "rows", seen);
            let below = |r: &Row| r.text("vm_name") == "bare" && r.text("device") != fast.name();
            // Its cgroup was named without capabilities too.
            if !found.iter().any(below) {
                until(&mut sampler, "rows by cgroup", |rows| {
                    rows.iter().any(below)
                });
            }
        });
        dropped.join().expect("without capabilities");
    });
}

/// The page cache answers a guest that reads one sector for ever.
#[test]
fn the_page_caches_answers_are_no_requests() {
    let _alone = alone();
    let (Some(()), Some((_, fast))) = (kvm(), disks()) else {
        return;
    };
    let Some(mut sampler) = sampler(AttachPolicy::Auto) else {
        return;
    };
    let _guest = Guest::reading(
        "cached",
        &guest::Disk {
            file: fast.path().to_owned(),
            options: "cache=writeback,aio=threads".to_owned(),
        },
    );
    let end = Instant::now() + Duration::from_secs(60);
    let asked = loop {
        sleep(Duration::from_secs(1));
        sampler.tick();
        let window = sampler.window(1);
        let io = rows(&window.more, "vm_io");
        let disks = rows(&window.more, "vm_disks");
        let row = io.iter().find(|r| r.text("vm_name") == "cached");
        let quiet = reads(&disks, "cached", fast.name()).is_none();
        if let Some(row) = row.filter(|r| quiet && r.int("asked_read_bytes") > 100_000) {
            assert_eq!(row.int("device_read_bytes"), 0, "{row:?}");
            break row.int("cached_read_bytes");
        }
        assert!(Instant::now() < end, "waited 60 s: {io:#?} {disks:#?}");
    };
    println!("{asked} bytes in a window from the page cache, no request");
}

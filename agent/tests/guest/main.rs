//! Real guests on this machine: found, measured, gone.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests")]

mod families;
mod guest;
mod process;
#[path = "../ship/server.rs"]
#[expect(dead_code, reason = "the shipping tests order faults, these do not")]
mod server;

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest::Guest;
use headroom_agent::probe::AttachPolicy;
use headroom_agent::sampler::{Sampler, SamplerOptions, Window};
use headroom_core::rows::VcpuRow;
use headroom_tests::require::{Need, have, lacks};
use rustix::process::Signal;

/// A sampler with probes, or `None` with the reason printed.
fn probing() -> Option<Sampler> {
    let sampler = Sampler::new(SamplerOptions::new("here".into()));
    if let Some(reason) = sampler.degraded() {
        lacks("bpf", reason);
        return None;
    }
    Some(sampler)
}

fn by_schedstat() -> Sampler {
    Sampler::new(SamplerOptions {
        attach: AttachPolicy::Off,
        ..SamplerOptions::new("here".into())
    })
}

/// The rows of the time in which `body` runs.
fn measure(sampler: &mut Sampler, body: impl FnOnce()) -> Window {
    sampler.tick();
    sampler.window(0);
    body();
    sampler.tick();
    sampler.window(1)
}

fn vcpu<'a>(window: &'a Window, name: &str, n: i64) -> &'a VcpuRow {
    window
        .vcpus
        .iter()
        .find(|v| v.vm_name == name && v.vcpu == n)
        .unwrap_or_else(|| panic!("no vCPU {n} of {name}"))
}

fn share(part: i64, row: &VcpuRow) -> f64 {
    part as f64 / row.window_ns as f64
}

fn assert_exact(window: &Window) {
    for v in &window.vcpus {
        let throttled = v.throttled_ns.unwrap_or(0);
        let sum = v.run_ns + v.ready_ns + throttled + v.wait_ns;
        assert_eq!(sum, v.window_ns, "{v:?}");
        assert!(v.run_ns >= 0 && v.ready_ns >= 0 && v.wait_ns >= 0, "{v:?}");
    }
}

/// The life of one guest, which every source has to tell alike.
fn life_of_a_guest(mut sampler: Sampler, name: &str) {
    sampler.tick();
    let source = sampler.source();
    let guest = Guest::start(name, 2);
    // Its threads are there: one tick, which comes once a second, finds them.
    sampler.tick();
    let started = sampler.window(0);
    assert!(
        started
            .events
            .iter()
            .any(|e| e.kind == "vm_started" && e.detail.starts_with(name)),
        "{started:?}"
    );
    let window = measure(&mut sampler, || sleep(Duration::from_secs(2)));
    assert_exact(&window);
    let (spin, idle) = (vcpu(&window, name, 0), vcpu(&window, name, 1));
    println!(
        "{source}: run {:.4} ready {:.4}",
        share(spin.run_ns, spin),
        share(spin.ready_ns, spin)
    );
    // It never sleeps, whatever else this machine does. A wait that is still
    // open, which may be 50 ms here, is not in schedstat.
    let least = if source == "schedstat" { 0.9 } else { 0.98 };
    assert!(share(spin.run_ns + spin.ready_ns, spin) > least, "{spin:?}");
    assert!(share(idle.run_ns + idle.ready_ns, idle) < 0.02, "{idle:?}");
    assert_eq!(
        (spin.source.as_str(), spin.tid),
        (source, i64::from(guest.tids("CPU 0/")[0]))
    );
    let vm = window
        .vms
        .iter()
        .find(|v| v.vm_name == name)
        .expect("row of the VM");
    assert_eq!(
        (vm.vcpus, vm.memory_bytes, vm.pid),
        (2, Some(16 << 20), i64::from(guest.pid()))
    );
    assert!(vm.vm_id.starts_with(&format!("{name}@")), "{}", vm.vm_id);
    pauses(&mut sampler, &guest, name);
    drop(guest);
    sampler.tick();
    let ended = sampler.window(2);
    assert!(
        ended
            .events
            .iter()
            .any(|e| e.kind == "vm_stopped" && e.detail.starts_with(name))
    );
    assert!(sampler.window(3).vms.iter().all(|v| v.vm_name != name));
}

fn pauses(sampler: &mut Sampler, guest: &Guest, name: &str) {
    let paused = |window: &Window| {
        assert_exact(window);
        let v = vcpu(window, name, 0);
        assert!(share(v.run_ns + v.ready_ns, v) < 0.02, "paused: {v:?}");
    };
    guest.signal(Signal::STOP);
    paused(&measure(sampler, || sleep(Duration::from_secs(1))));
    guest.signal(Signal::CONT);
    guest.qmp("stop");
    paused(&measure(sampler, || sleep(Duration::from_secs(1))));
    guest.qmp("cont");
    let window = measure(sampler, || sleep(Duration::from_secs(1)));
    let v = vcpu(&window, name, 0);
    assert!(share(v.run_ns + v.ready_ns, v) > 0.95, "goes on: {v:?}");
}

#[test]
fn a_guest_by_probes() {
    if !have("a_guest_by_probes", &[Need::Kvm]) {
        return;
    }
    if let Some(sampler) = probing() {
        life_of_a_guest(sampler, "probed");
    }
}

#[test]
fn a_guest_by_schedstat() {
    if !have("a_guest_by_schedstat", &[Need::Kvm]) {
        return;
    }
    life_of_a_guest(by_schedstat(), "fallback");
}

/// Three spinning guests on however many CPUs: what the probes say is what
/// the kernel accounts.
#[test]
fn ready_agrees_with_the_kernels_account() {
    if !have("ready_agrees_with_the_kernels_account", &[Need::Kvm]) {
        return;
    }
    let Some(mut sampler) = probing() else { return };
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    let guests: Vec<Guest> = (0..=cpus)
        .map(|n| Guest::start(&format!("crowd-{n}"), 1))
        .collect();
    let tids: Vec<u32> = guests.iter().map(|g| g.tids("CPU 0/")[0]).collect();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut span = Duration::ZERO;
    let account = || {
        guests
            .iter()
            .zip(&tids)
            .map(|(g, tid)| g.schedstat(*tid))
            .collect::<Vec<_>>()
    };
    let window = measure(&mut sampler, || {
        before = account();
        let begin = Instant::now();
        sleep(Duration::from_secs(4));
        after = account();
        span = begin.elapsed();
    });
    assert_exact(&window);
    let mut sum = (0, 0);
    for (n, (b, a)) in before.iter().zip(&after).enumerate() {
        let v = vcpu(&window, &format!("crowd-{n}"), 0);
        // The window is longer than the sleep by what the sampler does, the
        // more the longer it too has to wait: over the window's own length.
        let delay = u128::from(a.1 - b.1) * u128::from(v.window_ns.unsigned_abs());
        let delay = i64::try_from(delay / span.as_nanos()).expect("ns");
        sum = (sum.0 + v.ready_ns, sum.1 + delay);
    }
    println!(
        "ready {} ms, run_delay {} ms",
        sum.0 / 1_000_000,
        sum.1 / 1_000_000
    );
    // The kernel adds a wait when it ends: one slice a guest at each edge.
    let edges = 30_000_000 * i64::try_from(guests.len()).expect("few");
    assert!((sum.0 - sum.1).abs() <= sum.1 / 50 + edges, "{sum:?}");
    assert!(
        sum.1 > 500_000_000,
        "more guests than CPUs must wait: {sum:?}"
    );
}

/// debugfs, mounted for one test; unmounted on drop.
struct Debugfs(tempfile::TempDir);

impl Debugfs {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("directory");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "debugfs", "none"]).arg(dir.path());
        let mounted = Self(dir);
        status
            .status()
            .is_ok_and(|s| s.success())
            .then_some(mounted)
    }
}

impl Drop for Debugfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn vcpu_threads_without_names() {
    if !have("vcpu_threads_without_names", &[Need::Kvm]) {
        return;
    }
    let Some(debugfs) = Debugfs::mount() else {
        lacks("debugfs", "it can't be mounted");
        return;
    };
    let options = SamplerOptions {
        kvm_debug: debugfs.0.path().join("kvm"),
        attach: AttachPolicy::Off,
        ..SamplerOptions::new("here".into())
    };
    let mut sampler = Sampler::new(options);
    let guest = Guest::launch("nameless", 1, "off");
    let sampler = std::cell::RefCell::new(&mut sampler);
    let found = || {
        let mut sampler = sampler.borrow_mut();
        sampler.tick();
        sampler
            .window(0)
            .vcpus
            .iter()
            .any(|v| v.vm_name == "nameless")
    };
    guest::wait("the guest to be found", found);
    let window = measure(&mut sampler.borrow_mut(), || sleep(Duration::from_secs(1)));
    let v = vcpu(&window, "nameless", 0);
    assert!(share(v.run_ns + v.ready_ns, v) > 0.9, "{v:?}");
    assert!(guest.tids("CPU ").is_empty());
}

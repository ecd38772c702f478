//! Virtqueue delay against what real guests count of their own disks.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod queue;
mod stall;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use headroom_agent::sampler::{Sampler, SamplerOptions};
use headroom_lab::spec::{Aio, Backing, Cache, Disk, Spec};
use headroom_lab::{Figures, Guest, Stage};
use headroom_tests::require::lacks;
use queue::Queue;
use stall::Stall;

/// One at a time: the machine has few CPUs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A measured guest, or `None` with the reason printed.
struct Bench {
    sampler: Sampler,
    guest: Guest,
    _stage: Stage,
}

/// Queues and the guest's own figures of the same time.
struct Measured {
    queues: Vec<Queue>,
    kicks: i64,
    interrupts: i64,
    requests: i64,
}

impl Bench {
    fn start(name: &str, disk: Disk) -> Option<Self> {
        let stage = Stage::set(10_000)
            .map_err(|e| lacks("kvm", format_args!("{e:#}")))
            .ok()?;
        let spec = Spec {
            disk: Some(disk),
            ..Spec::new(name)
        };
        let guest = stage
            .guest(&spec)
            .map_err(|e| lacks("kvm", format_args!("{e:#}")))
            .ok()?;
        let mut sampler = Sampler::new(SamplerOptions::new("here".into()));
        if let Some(reason) = sampler.degraded() {
            lacks("bpf", reason);
            return None;
        }
        sampler.tick();
        Some(Self {
            sampler,
            guest,
            _stage: stage,
        })
    }

    fn queues(&mut self) -> Vec<Queue> {
        self.sampler.tick();
        let window = self.sampler.window(1);
        Queue::of(&window, self.guest.name())
    }

    /// Nothing in flight: what the guest counted is what was there to count.
    fn quiet(&self) -> Figures {
        self.guest.memory().use_disk(false).unwrap();
        let mut last = self.guest.memory().figures().unwrap();
        loop {
            sleep(Duration::from_millis(300));
            let now = self.guest.memory().figures().unwrap();
            if now == last {
                return now;
            }
            last = now;
        }
    }

    fn measure(&mut self, time: Duration) -> Measured {
        // Its first kick proves the doorbell.
        sleep(Duration::from_millis(300));
        let before = self.quiet();
        self.queues();
        self.guest.memory().use_disk(true).unwrap();
        sleep(time);
        let after = self.quiet();
        let measured = Measured {
            queues: self.queues(),
            kicks: i64::from(after.kicks - before.kicks),
            interrupts: i64::from(after.interrupts - before.interrupts),
            requests: i64::try_from(after.done.count - before.done.count).unwrap(),
        };
        println!(
            "{}: guest {} requests, {} kicks, {} interrupts; {:#?}",
            self.guest.name(),
            measured.requests,
            measured.kicks,
            measured.interrupts,
            measured.queues
        );
        measured
    }
}

impl Measured {
    /// The one backend that was kicked.
    fn backend(&self) -> &Queue {
        let mut kicked = self.queues.iter().filter(|q| q.kicks != Some(0));
        let one = kicked.next().unwrap();
        assert!(kicked.next().is_none(), "{:?}", self.queues);
        one
    }

    /// What must hold whoever serves the queue.
    fn check(&self) {
        let queue = self.backend();
        assert!(self.requests > 20, "{}", self.requests);
        assert_eq!(queue.kicks, Some(self.kicks), "{queue:?}");
        assert_eq!(queue.pickups, queue.wakes, "nothing is pending: {queue:?}");
        assert_eq!(queue.pending_ns, 0, "{queue:?}");
        // One that was on a CPU at the kick neither woke nor polled for sure.
        let told = queue.wakes + queue.polled.unwrap();
        assert!(
            (self.kicks - told).abs() <= self.kicks / 20 + 1,
            "{queue:?}"
        );
    }
}

fn slow(latency: Duration) -> Disk {
    Disk::new(Backing::Null { latency }, 40)
}

#[test]
fn an_iothreads_kicks_and_interrupts_are_the_guests() {
    let _alone = alone();
    let Some(mut bench) = Bench::start("io-thread", slow(Duration::from_millis(20))) else {
        return;
    };
    let measured = bench.measure(Duration::from_secs(3));
    measured.check();
    let queue = measured.backend();
    assert_eq!(
        (queue.backend.as_str(), queue.kind.as_str()),
        ("io0", "iothread")
    );
    // One request at a time and an iothread that sleeps: each kick wakes.
    assert!(
        queue.polled.unwrap() <= measured.kicks / 20 + 1,
        "{queue:?}"
    );
    assert_eq!(queue.injects, Some(measured.interrupts), "{queue:?}");
    // Each of its timers woke it, and each interrupt a halted vCPU.
    assert!(queue.completions >= measured.requests * 9 / 10, "{queue:?}");
    assert!(
        queue.inject_wakes.unwrap() >= measured.interrupts / 2,
        "{queue:?}"
    );
    assert!(queue.source.ends_with("+kvm"), "{queue:?}");
}

#[test]
fn the_main_loop_is_named_where_it_serves_the_disk() {
    let _alone = alone();
    let disk = Disk {
        iothread: false,
        ..slow(Duration::from_millis(5))
    };
    let Some(mut bench) = Bench::start("main-loop", disk) else {
        return;
    };
    let measured = bench.measure(Duration::from_secs(2));
    measured.check();
    let queue = measured.backend();
    assert_eq!(
        (queue.backend.as_str(), queue.kind.as_str()),
        ("main loop", "main_loop")
    );
}

#[test]
fn each_way_of_asynchronous_io_is_seen() {
    let _alone = alone();
    for (aio, name) in [
        (Aio::IoUring, "io-uring"),
        (Aio::Native, "aio-native"),
        (Aio::Threads, "aio-threads"),
    ] {
        let backing = Backing::File {
            aio,
            cache: if aio == Aio::Native {
                Cache::None
            } else {
                Cache::Writeback
            },
        };
        let Some(mut bench) = Bench::start(name, Disk::new(backing, 100)) else {
            return;
        };
        let measured = bench.measure(Duration::from_secs(1));
        measured.check();
        assert_eq!(measured.backend().backend, "io0", "{name}");
    }
}

#[test]
fn a_polling_backend_is_counted_apart() {
    let _alone = alone();
    let disk = Disk {
        poll: Duration::from_millis(2),
        ..Disk::new(
            Backing::Null {
                latency: Duration::ZERO,
            },
            0,
        )
    };
    let Some(mut bench) = Bench::start("polls", disk) else {
        return;
    };
    let measured = bench.measure(Duration::from_secs(1));
    let queue = measured.backend();
    // Most requests are taken without a kick, for a polling device wants none.
    assert!(measured.kicks < measured.requests, "{}", measured.requests);
    assert!(queue.wakes < measured.requests / 2, "{queue:?}");
    let kicks = queue.kicks.unwrap();
    assert!(kicks <= measured.kicks, "{queue:?}");
}

#[test]
fn a_stalled_iothread_shows_and_is_named() {
    let _alone = alone();
    let Some(mut bench) = Bench::start("stalls", slow(Duration::from_millis(1))) else {
        return;
    };
    let healthy = bench.measure(Duration::from_secs(1));
    let healthy = healthy.backend();
    bench.guest.memory().use_disk(true).unwrap();
    let Some(stall) = Stall::begin(bench.guest.pid(), "IO io0") else {
        return;
    };
    // The kernel lets real-time tasks have 95 % of each second: nearly always
    // one of these looks falls into the stall. A machine that is itself starved
    // takes longer to come to it.
    let mut worst: Option<Queue> = None;
    let end = Instant::now() + Duration::from_secs(20);
    let stalled =
        |worst: &Option<Queue>| worst.as_ref().is_some_and(|w| w.pending_ns > 100_000_000);
    while !stalled(&worst) && Instant::now() < end {
        sleep(Duration::from_millis(50));
        for queue in bench.queues() {
            if worst
                .as_ref()
                .is_none_or(|w| w.pending_ns < queue.pending_ns)
            {
                worst = Some(queue);
            }
        }
    }
    drop(stall);
    let worst = worst.unwrap();
    println!("stalled: {worst:#?}");
    assert_eq!(worst.backend, "io0");
    assert!(worst.pending_ns > 50_000_000, "{worst:?}");
    let usual = i64::try_from(healthy.pickup_p50_ns.unwrap()).unwrap();
    assert!(worst.pending_ns > 10 * usual, "{healthy:?}");
    assert!(worst.pickup_max_ns >= worst.pending_ns, "{worst:?}");
}

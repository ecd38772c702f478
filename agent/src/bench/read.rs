//! What a reading in user space costs.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use headroom_abi::tag;
use rustix::thread::gettid;
use serde::Serialize;

use crate::bench::BenchError;
use crate::bench::quantile::p10;
use crate::probe::{Probes, Slot};

const BATCHES: usize = 100;
/// Readings in a batch: some 50 µs.
const READINGS: u32 = 100;
/// Time for the other thread to run, and to be preempted.
const SETTLE: Duration = Duration::from_millis(20);

/// One reading each, µs of user space, at p10 of batches; none makes a system
/// call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReadCosts {
    /// All counters and histograms of a thread that runs.
    pub slot: f64,
    /// The same of one that waits: its open wait is charged over a CPU's log.
    pub waiting_slot: f64,
    /// Totals of all possible CPUs.
    pub cpus: f64,
    /// Whom one VM waited for, all VM numbers.
    pub blame_row: f64,
}

/// Measures from a thread that is pinned and registered as `own`.
pub fn costs(probes: &mut Probes, own: &Slot) -> Result<ReadCosts, BenchError> {
    let (tid, end) = (&AtomicU32::new(0), &AtomicBool::new(false));
    thread::scope(|scope| {
        // It inherits the CPU: it waits whenever this thread runs.
        scope.spawn(move || {
            tid.store(
                gettid().as_raw_nonzero().get().unsigned_abs(),
                Ordering::Release,
            );
            while !end.load(Ordering::Relaxed) {
                spin_loop();
            }
        });
        let costs = with_waiting(probes, own, tid);
        end.store(true, Ordering::Relaxed);
        costs
    })
}

fn with_waiting(probes: &mut Probes, own: &Slot, tid: &AtomicU32) -> Result<ReadCosts, BenchError> {
    while tid.load(Ordering::Acquire) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let tag = tag::of(2, tag::role::VCPU);
    let other = probes.register(tid.load(Ordering::Acquire), tag)?;
    thread::sleep(SETTLE);
    let costs = ReadCosts {
        slot: micros(|| drop(black_box(probes.read(own)))),
        waiting_slot: micros(|| drop(black_box(probes.read(&other)))),
        cpus: micros(|| drop(black_box(probes.cpus()))),
        blame_row: micros(|| drop(black_box(probes.blamed(2)))),
    };
    probes.release(other)?;
    Ok(costs)
}

fn micros(mut reading: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..READINGS {
                reading();
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(READINGS)
        })
        .collect();
    p10(&mut times).unwrap_or(f64::NAN)
}

//! Records what the scheduler says of some threads and of all CPUs.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use headroom_vmlab::message::{CpuSeries, Series};

use crate::task::{now_us, schedstat, switches};

/// 50 times a second: more would take CPU time from the guests.
const STEP: Duration = Duration::from_millis(20);

/// `status` and the CPUs' counts cost some times what `schedstat` does: every
/// fifth step.
const RARELY: u64 = 5;

/// A reader that was preempted itself does not know when a value was true.
const SURE_US: i64 = 2000;

/// Reads the kernel's counts until it is stopped.
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Record>,
}

/// What was recorded.
pub struct Record {
    /// Of each thread.
    pub threads: Vec<Series>,
    /// Of each CPU.
    pub cpus: Vec<CpuSeries>,
}

impl Recorder {
    /// Records threads given by the name of their VM and their id.
    pub fn start(threads: impl IntoIterator<Item = (String, u32)>) -> Self {
        let series = threads.into_iter().map(|(vm, tid)| Series {
            vm,
            tid,
            ..Series::default()
        });
        let mut record = Record {
            threads: series.collect(),
            cpus: Vec::new(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut step = 0;
            while !stopped.load(Ordering::Relaxed) {
                record.threads.iter_mut().for_each(sample);
                if step % RARELY == 0 {
                    record.threads.iter_mut().for_each(sample_switches);
                    sample_cpus(&mut record.cpus);
                }
                step += 1;
                std::thread::sleep(STEP);
            }
            record
        });
        Self { stop, thread }
    }

    /// Ends the recording.
    pub fn stop(self) -> anyhow::Result<Record> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the recorder panicked"))
    }
}

/// A value and when it was true, if that is known.
fn timed<T>(read: impl FnOnce() -> anyhow::Result<T>) -> Option<(i64, T)> {
    let before = now_us();
    let value = read().ok()?;
    let after = now_us();
    (after - before < SURE_US).then_some((before.midpoint(after), value))
}

fn sample(series: &mut Series) {
    let of = timed(|| schedstat(series.tid));
    series
        .samples
        .extend(of.map(|(us, (run, wait))| (us, run, wait)));
}

fn sample_switches(series: &mut Series) {
    series.switches.extend(timed(|| switches(series.tid)));
}

/// Lines `cpuN …` of `/proc/schedstat`, whose 7th to 9th figures are the time
/// that tasks ran on it, the time that tasks waited for it, and the number of
/// their turns (kernel/sched/stats.c).
fn sample_cpus(cpus: &mut Vec<CpuSeries>) {
    let Some((us, text)) = timed(|| Ok(fs::read_to_string("/proc/schedstat")?)) else {
        return;
    };
    let lines = text.lines().filter_map(|l| l.strip_prefix("cpu"));
    let figures = lines.filter_map(|line| {
        let mut fields = line.split(' ').map(str::parse::<u64>);
        let cpu = usize::try_from(fields.next()?.ok()?).ok()?;
        Some((cpu, fields.nth(6)?.ok()?, fields.next()?.ok()?))
    });
    for (cpu, run, wait) in figures {
        if cpus.len() <= cpu {
            cpus.push(CpuSeries::default());
        }
        if let Some(series) = cpus.get_mut(cpu) {
            series.cpu = cpu;
            series.samples.push((us, run, wait));
        }
    }
}

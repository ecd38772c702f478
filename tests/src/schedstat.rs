//! The independent truth: the kernel's own run-queue wait of each thread.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

/// Threads of a process whose name begins with `prefix`, with their ids.
///
/// # Errors
/// The process is gone.
pub fn threads(pid: u32, prefix: &str) -> anyhow::Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?
    {
        let tid: u32 = entry?.file_name().to_string_lossy().parse()?;
        let comm = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"))?;
        if comm.starts_with(prefix) {
            found.push((comm.trim().to_owned(), tid));
        }
    }
    found.sort();
    Ok(found)
}

/// (run ns, wait ns) of a thread since it began.
///
/// # Errors
/// The thread is gone.
pub fn read(pid: u32, tid: u32) -> anyhow::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"))?;
    let mut fields = text.split_whitespace().map(str::parse);
    let mut next = || {
        fields
            .next()
            .context("schedstat is short")?
            .context("schedstat")
    };
    Ok((next()?, next()?))
}

/// Reads some threads' schedstat every 20 ms until it is stopped, so that a
/// test can ask for the wait between any two points in time.
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<u32, Vec<(i64, u64)>>>,
}

impl Recorder {
    /// Starts recording the wait of threads given as (pid, tid).
    #[must_use]
    pub fn start(threads: Vec<(u32, u32)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen: BTreeMap<u32, Vec<(i64, u64)>> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for (pid, tid) in &threads {
                    let before = now_us();
                    let Ok((_, wait)) = read(*pid, *tid) else {
                        continue;
                    };
                    let after = now_us();
                    // A reader that was preempted itself does not know when
                    // the value was true.
                    if after - before < 2000 {
                        seen.entry(*tid)
                            .or_default()
                            .push((before.midpoint(after), wait));
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends the recording.
    ///
    /// # Panics
    /// The recording thread failed.
    #[must_use]
    pub fn stop(self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        Record(self.thread.join().expect("recorder"))
    }
}

/// Waits over time, by thread.
pub struct Record(BTreeMap<u32, Vec<(i64, u64)>>);

impl Record {
    /// Wait of a thread between two times (µs since 1970), ns, interpolated
    /// between the readings around them.
    #[must_use]
    pub fn wait_ns(&self, tid: u32, from_us: i64, to_us: i64) -> Option<f64> {
        let series = self.0.get(&tid)?;
        Some(at(series, to_us)? - at(series, from_us)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "ns of a test's minutes")]
fn at(series: &[(i64, u64)], t: i64) -> Option<f64> {
    let after = series.iter().position(|(u, _)| *u >= t)?;
    let before = after.checked_sub(1)?;
    let ((t0, v0), (t1, v1)) = (series[before], series[after]);
    let share = (t - t0) as f64 / (t1 - t0).max(1) as f64;
    Some(v0 as f64 + (v1 - v0) as f64 * share)
}

/// Now, µs since 1970.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

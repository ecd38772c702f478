//! Records what the scheduler says of some threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use headroom_vmlab::message::Series;

use crate::task::{now_us, schedstat};

/// 50 times a second: more would take CPU time from the guests.
const STEP: Duration = Duration::from_millis(20);

/// A reader that was preempted itself does not know when a value was true.
const SURE_US: i64 = 2000;

/// Reads `/proc/TID/schedstat` until it is stopped.
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Series>>,
}

impl Recorder {
    /// Records threads given by the name of their VM and their id.
    pub fn start(threads: impl IntoIterator<Item = (String, u32)>) -> Self {
        let series = threads.into_iter().map(|(vm, tid)| Series {
            vm,
            tid,
            samples: Vec::new(),
        });
        let mut series: Vec<_> = series.collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                series.iter_mut().for_each(sample);
                std::thread::sleep(STEP);
            }
            series
        });
        Self { stop, thread }
    }

    /// Ends the recording.
    pub fn stop(self) -> anyhow::Result<Vec<Series>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the recorder panicked"))
    }
}

fn sample(series: &mut Series) {
    let before = now_us();
    let Ok((run, wait)) = schedstat(series.tid) else {
        return;
    };
    let after = now_us();
    if after - before < SURE_US {
        series.samples.push((before.midpoint(after), run, wait));
    }
}

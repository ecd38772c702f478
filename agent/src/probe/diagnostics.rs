//! The probes' own diagnostics, from their ring buffer into our log. Only in
//! builds with the feature `bpf-log`.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// How often the ring buffer is emptied; it holds some thousand lines.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// Empties the ring buffer until it is dropped.
pub struct Diagnostics {
    _stop: Sender<()>,
}

impl Diagnostics {
    /// Starts to read; `None`, with a warning, if the object has no such map.
    pub fn start(ebpf: &mut Ebpf) -> Option<Self> {
        let mut logger = EbpfLogger::init_with_logger(ebpf, ToTracing)
            .inspect_err(|error| tracing::warn!(%error, "no diagnostics of the probes"))
            .ok()?;
        let (stop, stopped) = mpsc::channel();
        let reader = move || {
            while stopped.recv_timeout(FLUSH_EVERY) == Err(RecvTimeoutError::Timeout) {
                logger.flush();
            }
        };
        let spawned = thread::Builder::new()
            .name("bpf-log".to_owned())
            .spawn(reader);
        spawned
            .inspect_err(|error| tracing::warn!(%error, "no thread for the probes' diagnostics"))
            .ok()?;
        Some(Self { _stop: stop })
    }
}

struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "bpf", "{message}"),
            Level::Warn => tracing::warn!(target: "bpf", "{message}"),
            Level::Info => tracing::info!(target: "bpf", "{message}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "bpf", "{message}"),
        }
    }

    fn flush(&self) {}
}

//! What happened, in its order: a digest of it, and the text for who wants it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// FNV-1a, whose result no seed of a hash map changes.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Clones add to the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    digest: u64,
    now: Duration,
    print: bool,
}

impl Trace {
    /// An empty one; `print` shows each event.
    pub fn new(print: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            digest: OFFSET,
            now: Duration::ZERO,
            print,
        })))
    }

    /// Time of events that are not of one host.
    pub fn at(&self, now: Duration) {
        self.lock().now = now;
    }

    /// Adds an event.
    #[expect(clippy::print_stdout, reason = "asked for with --events")]
    pub fn note(&self, who: fmt::Arguments<'_>, what: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let now = turmoil::sim_elapsed().unwrap_or(inner.now).as_millis();
        let line = format!("{now} {who} {what}\n");
        if inner.print {
            print!("{line}");
        }
        for byte in line.bytes() {
            inner.digest = (inner.digest ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }

    /// Of all events so far.
    pub fn digest(&self) -> u64 {
        self.lock().digest
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

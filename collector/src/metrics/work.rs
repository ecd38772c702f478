//! Counters that need no lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::query::QueryError;

/// Upper bounds of the time that a flush or a merge takes, ms.
const BOUNDS_MS: [u64; 7] = [10, 100, 500, 1_000, 5_000, 30_000, 120_000];
/// The same in seconds as labels, and the last bucket.
pub const LE: [&str; 8] = ["0.01", "0.1", "0.5", "1", "5", "30", "120", "+Inf"];

/// How the store's work went.
#[derive(Debug, Default)]
pub struct Work {
    /// From memory to Parquet.
    pub flushes: Timings,
    /// Several files to one.
    pub merges: Timings,
}

/// How often something was done, and how long it took.
#[derive(Debug, Default)]
pub struct Timings {
    counts: [AtomicU64; 8],
    sum_us: AtomicU64,
    failures: AtomicU64,
}

impl Timings {
    /// It took that long, and failed or not.
    pub fn done(&self, took: Duration, ok: bool) {
        let ms = took.as_millis();
        let at = BOUNDS_MS.iter().position(|b| ms <= u128::from(*b));
        self.counts[at.unwrap_or(BOUNDS_MS.len())].fetch_add(1, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(0);
        self.sum_us.fetch_add(us, Relaxed);
        self.failures.fetch_add(u64::from(!ok), Relaxed);
    }

    /// Counts by bucket, seconds in all, failures.
    pub fn read(&self) -> ([u64; 8], f64, u64) {
        let counts = std::array::from_fn(|i| self.counts[i].load(Relaxed));
        let seconds = self.sum_us.load(Relaxed) as f64 / 1e6;
        (counts, seconds, self.failures.load(Relaxed))
    }
}

/// What became of queries, in the order of [`Queries`].
pub const OUTCOMES: [&str; 6] = ["answered", "invalid", "timeout", "memory", "busy", "failed"];

/// Queries of one door by outcome.
#[derive(Debug, Default)]
pub struct Queries([AtomicU64; OUTCOMES.len()]);

impl Queries {
    /// One was answered to its end.
    pub fn answered(&self) {
        self.0[0].fetch_add(1, Relaxed);
    }

    /// One failed.
    pub fn count(&self, error: &QueryError) {
        let at = match error {
            QueryError::Sql(_) | QueryError::TooLong { .. } => 1,
            QueryError::Timeout(_) => 2,
            QueryError::Memory(_) => 3,
            QueryError::Busy => 4,
            _ => 5,
        };
        self.0[at].fetch_add(1, Relaxed);
    }
}

/// The queries of each door.
#[derive(Debug, Default)]
pub struct Doors {
    /// `/v1/sql`.
    pub http: Queries,
    /// `Query.Sql`.
    pub grpc: Queries,
}

impl Doors {
    /// Counts by door, in the order of [`OUTCOMES`].
    pub fn all(&self) -> [(&'static str, &[AtomicU64; OUTCOMES.len()]); 2] {
        [("http", &self.http.0), ("grpc", &self.grpc.0)]
    }
}

/// What remote-write did.
#[derive(Debug, Default)]
pub struct Sent {
    /// Samples that the receiver took.
    pub sent: AtomicU64,
    /// Samples that it refused for ever.
    pub rejected: AtomicU64,
    /// Samples dropped because too many waited.
    pub no_room: AtomicU64,
    /// Samples not older than what was sent of their series before.
    pub stale: AtomicU64,
    /// Rows dropped before they became samples.
    pub rows: AtomicU64,
    /// Requests that wait.
    pub waiting: AtomicU64,
    /// Attempts that failed and are repeated.
    pub failures: AtomicU64,
}

impl Sent {
    /// Samples by outcome.
    pub fn samples(&self) -> [(&'static str, u64); 4] {
        [
            ("sent", self.sent.load(Relaxed)),
            ("rejected", self.rejected.load(Relaxed)),
            ("no_room", self.no_room.load(Relaxed)),
            ("stale", self.stale.load(Relaxed)),
        ]
    }
}

//! Wall time in microseconds since 1970 UTC, and its text.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds, as a point in time or as a length.
pub type Micros = i64;

/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;

/// The time now.
#[must_use]
pub fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    micros(since)
}

/// A duration in microseconds; longer than 290 000 years is that.
#[must_use]
pub fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

/// A time as RFC 3339 in UTC. Out of its range (years 0 to 9999) 1970.
#[must_use]
pub fn rfc3339(at: Micros) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".into())
}

/// Seconds as a float.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds below 2^53 until the year 2255"
)]
pub fn seconds(length: Micros) -> f64 {
    length as f64 / 1e6
}

//! Wait histograms outside the kernel: merge, quantiles and the stored bytes.
//!
//! Stored form: for each non-empty bucket in ascending order, LEB128 of the
//! distance to the previous bucket (the first: to bucket 0), then LEB128 of
//! the count. Empty histogram: no bytes. Bucket bounds: [`headroom_abi::hist`].

pub use headroom_abi::hist::{BUCKETS, index, lower, midpoint};

/// Bytes that are no histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistError {
    /// The bytes end within a number.
    #[error("histogram bytes end in the middle of a number")]
    Truncated,
    /// A bucket beyond the last or a count beyond 64 bits.
    #[error("histogram bytes name a bucket or a count out of range")]
    OutOfRange,
}

/// Counts of waits by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hist {
    counts: [u64; BUCKETS],
}

impl Default for Hist {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl Hist {
    /// A histogram of the given counts.
    #[must_use]
    pub const fn from_counts(counts: [u64; BUCKETS]) -> Self {
        Self { counts }
    }

    /// Counts by bucket.
    #[must_use]
    pub const fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// Adds `n` waits of `ns` nanoseconds.
    pub fn record(&mut self, ns: u64, n: u64) {
        self.counts[index(ns)] += n;
    }

    /// Number of waits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.counts.iter_mut().zip(other.counts) {
            *a = a.saturating_add(b);
        }
    }

    /// What was counted since `earlier`, a previous reading of the same
    /// cumulative counters; a bucket that fell (never for one slot) gives 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (a, b) in counts.iter_mut().zip(earlier.counts) {
            *a = a.saturating_sub(b);
        }
        Self { counts }
    }

    /// The value at quantile `q` in `0..=1`, ns (the bucket's midpoint, within
    /// 12.5 %); `None` for an empty histogram or a `q` out of range.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank in 1..=total; 2^53 waits in one histogram are out of reach"
        )]
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(midpoint(bucket));
            }
        }
        None
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count > 0 {
                put(&mut out, (bucket - last) as u64);
                put(&mut out, count);
                last = bucket;
            }
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Bytes that [`Hist::encode`] never writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HistError> {
        let mut hist = Self::default();
        each(bytes, |bucket, count| {
            let sum = hist.counts[bucket].checked_add(count);
            hist.counts[bucket] = sum.ok_or(HistError::OutOfRange)?;
            Ok(())
        })?;
        Ok(hist)
    }

    /// Whether [`Hist::decode`] takes these bytes, without making the counts.
    ///
    /// # Errors
    /// Those of [`Hist::decode`].
    pub fn check(bytes: &[u8]) -> Result<(), HistError> {
        let mut last = (usize::MAX, 0u64);
        each(bytes, |bucket, count| {
            // A bucket named again adds to its count.
            let before = if last.0 == bucket { last.1 } else { 0 };
            let sum = before.checked_add(count).ok_or(HistError::OutOfRange)?;
            last = (bucket, sum);
            Ok(())
        })
    }
}

/// Buckets and counts of the stored form, buckets ascending.
fn each(
    bytes: &[u8],
    mut see: impl FnMut(usize, u64) -> Result<(), HistError>,
) -> Result<(), HistError> {
    let (mut rest, mut bucket) = (bytes, 0usize);
    while !rest.is_empty() {
        let step = usize::try_from(take(&mut rest)?).map_err(|_| HistError::OutOfRange)?;
        bucket = bucket
            .checked_add(step)
            .filter(|b| *b < BUCKETS)
            .ok_or(HistError::OutOfRange)?;
        let count = take(&mut rest)?;
        see(bucket, count)?;
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push((v & 0x7f) as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, HistError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(HistError::Truncated)?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        if shift == 63 && part > 1 {
            return Err(HistError::OutOfRange);
        }
        value |= part << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HistError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_a_bimodal_load() {
        let mut h = Hist::default();
        h.record(2_000, 95);
        h.record(50_000_000, 5);
        assert!(h.quantile(0.5).unwrap().abs_diff(2_000) <= 250);
        assert!(h.quantile(0.99).unwrap().abs_diff(50_000_000) <= 6_250_000);
        assert_eq!(Hist::default().quantile(0.5), None);
        assert_eq!(h.quantile(1.5), None);
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(waits in prop::collection::vec((any::<u64>(), 1u64..1_000_000), 0..40)) {
            let mut h = Hist::default();
            for (ns, n) in waits {
                h.record(ns, n);
            }
            prop_assert_eq!(Hist::decode(&h.encode()).unwrap(), h);
        }

        #[test]
        fn decode_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Hist::check(&bytes), Hist::decode(&bytes).map(drop));
        }
    }
}

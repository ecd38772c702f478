//! Log-linear histogram of durations: four equal buckets in each octave.
//!
//! The value reported for a bucket is its midpoint, which is at most half a
//! bucket, 1/8 of the lower bound, away from any value in it: a relative error
//! of 12.5 % from [`MIN_NS`] to [`MAX_NS`] (contains 1 µs to 10 s).

/// Buckets in an octave, as a power of two.
pub const SUB_BITS: u32 = 2;
/// Smallest duration with a bucket of its own, ns (512).
pub const MIN_NS: u64 = 1 << FIRST_OCTAVE;
/// First duration beyond the last bucket, ns (17.2 s).
pub const MAX_NS: u64 = 1 << (LAST_OCTAVE + 1);
/// Number of buckets: one below [`MIN_NS`], 25 octaves of four, one above.
pub const BUCKETS: usize = 2 + (((LAST_OCTAVE - FIRST_OCTAVE + 1) as usize) << SUB_BITS);

const FIRST_OCTAVE: u32 = 9;
const LAST_OCTAVE: u32 = 33;

/// Bucket of a duration in nanoseconds, in `0..BUCKETS`.
#[inline(always)]
#[must_use]
pub const fn index(ns: u64) -> usize {
    if ns < MIN_NS {
        return 0;
    }
    if ns >= MAX_NS {
        return BUCKETS - 1;
    }
    let octave = 63 - ns.leading_zeros();
    let sub = (ns >> (octave - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    1 + (((octave - FIRST_OCTAVE) << SUB_BITS) as usize) + sub as usize
}

/// Lower bound (inclusive) of a bucket, ns.
#[must_use]
pub const fn lower(bucket: usize) -> u64 {
    if bucket == 0 {
        return 0;
    }
    if bucket >= BUCKETS - 1 {
        return MAX_NS;
    }
    let i = (bucket - 1) as u64;
    let octave = FIRST_OCTAVE as u64 + (i >> SUB_BITS);
    let sub = i & ((1 << SUB_BITS) - 1);
    (1 << octave) + (sub << (octave - SUB_BITS as u64))
}

/// Value that stands for a bucket, ns: its midpoint, 256 for the first, and
/// the lower bound for the unbounded last.
#[must_use]
pub const fn midpoint(bucket: usize) -> u64 {
    if bucket >= BUCKETS - 1 {
        return MAX_NS;
    }
    (lower(bucket) + lower(bucket + 1)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_falls_into_its_bucket() {
        for b in 0..BUCKETS {
            assert_eq!(index(lower(b)), b);
            if b > 0 {
                assert_eq!(index(lower(b) - 1), b - 1);
            }
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn midpoint_is_within_an_eighth() {
        let mut ns = 1_000u64;
        while ns < 10_000_000_000 {
            let mid = midpoint(index(ns));
            assert!(mid.abs_diff(ns) * 8 <= ns, "{ns} ns stands as {mid}");
            ns += ns / 97 + 1;
        }
    }
}

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
    let octave = octave(ns);
    let sub = (ns >> (octave - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    1 + (((octave - FIRST_OCTAVE) << SUB_BITS) as usize) + sub as usize
}

/// Position of the highest bit of a value in `MIN_NS..MAX_NS`. By halves: BPF
/// has no instruction for it, and the compiler's 55 instructions for
/// `leading_zeros` cost 5 ns a switch.
#[inline(always)]
const fn octave(ns: u64) -> u32 {
    let mut rest = ns >> FIRST_OCTAVE;
    let mut octave = FIRST_OCTAVE;
    let mut half = 16;
    while half > 0 {
        if rest >> half != 0 {
            rest >>= half;
            octave += half;
        }
        half /= 2;
    }
    octave
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
    fn octaves_are_those_of_leading_zeros() {
        for bit in FIRST_OCTAVE..=LAST_OCTAVE {
            for ns in [1u64 << bit, (1 << bit) + 1, (2 << bit) - 1] {
                assert_eq!(octave(ns), 63 - ns.leading_zeros(), "{ns}");
            }
        }
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

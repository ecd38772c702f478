//! Human units: durations and sizes as they stand in a configuration file.

use std::time::Duration;

/// A text that is no duration or no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write it like {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Reads `"250ms"`, `"10s"`, `"5m"`, `"1h"` or `"7d"`.
///
/// # Errors
/// Anything else, a sign or an overflow.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let units = [
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", 86400.0),
    ];
    scaled(text, &units)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| UnitError {
            text: text.into(),
            what: "duration",
            example: "\"10s\", \"5m\" or \"1h\"",
        })
}

/// Reads `"512 MiB"`, `"64KiB"`, `"2 GiB"` or `"1000 B"` as bytes.
///
/// # Errors
/// Anything else, a sign or an overflow.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let units = [
        ("B", 1.0),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
    ];
    scaled(text, &units)
        .filter(|v| *v < 9.0e15)
        .map(|v| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 ≤ v < 9e15 by the filter"
            )]
            let bytes = v as u64;
            bytes
        })
        .ok_or_else(|| UnitError {
            text: text.into(),
            what: "size",
            example: "\"512 MiB\" or \"2 GiB\"",
        })
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let factor = units.iter().find(|(u, _)| *u == unit)?.1;
    let value: f64 = number.trim().parse().ok()?;
    (value >= 0.0).then_some(value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(parse_duration("1.5 h").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in ["", "10", "s", "-1s", "10 parsecs", "1e400d", "NaNs"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512 MiB").unwrap(), 512 << 20);
        assert_eq!(parse_size("1000 B").unwrap(), 1000);
        for bad in ["", "512", "512 MB", "-1 B", "9e99 GiB"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }
}

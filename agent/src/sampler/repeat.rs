//! How often things that hardly change are told again.

/// Ten minutes, µs: so that ten minutes of history hold a row of each thing.
pub const REPEAT_US: i64 = 600 * 1_000_000;

/// Whether what was told at `last` is to be told again at `ts`, both µs since
/// 1970 UTC. A clock that was set back is no reason to be silent.
pub fn due(last: Option<i64>, ts: i64) -> bool {
    last.is_none_or(|last| ts < last || ts - last >= REPEAT_US)
}

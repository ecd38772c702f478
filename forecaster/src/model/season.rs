//! The season of a series, by autocorrelation.

use super::float;
use super::trend::least_squares;

/// Weakest autocorrelation at the season's lag, however long the series.
const MIN_CORRELATION: f64 = 0.3;
/// Standard errors (1/√pairs) above none: the best of 100 lags of white noise
/// reaches 3. Capped, else two short seasons could never show.
const MIN_STANDARD_ERRORS: f64 = 3.5;
const MAX_THRESHOLD: f64 = 0.8;
/// How far the autocorrelation must have fallen before it rises again to the
/// season's peak: a random walk only falls.
const MIN_RISE: f64 = 0.2;

/// Steps in the strongest season, or `None` where there is none or fewer than
/// two full seasons are in the series.
#[must_use]
pub fn detect(series: &[f64]) -> Option<usize> {
    let n = series.len();
    if n < 8 {
        return None;
    }
    let (intercept, slope) = least_squares(series);
    let rest: Vec<f64> = series
        .iter()
        .enumerate()
        .map(|(i, v)| v - intercept - slope * float(i))
        .collect();
    let variance: f64 = rest.iter().map(|v| v * v).sum();
    let scale: f64 = series.iter().map(|v| v * v).sum();
    if variance <= 1e-12 * scale.max(f64::MIN_POSITIVE) {
        return None;
    }
    let correlation: Vec<f64> = (0..=n / 2)
        .map(|lag| at_lag(&rest, lag) / variance)
        .collect();
    strongest_peak(&correlation, n)
}

fn at_lag(rest: &[f64], lag: usize) -> f64 {
    // Scaled up to the number of pairs, else long seasons look weak.
    let pairs = rest.len() - lag;
    let sum: f64 = rest[lag..].iter().zip(rest).map(|(a, b)| a * b).sum();
    sum * float(rest.len()) / float(pairs)
}

fn strongest_peak(correlation: &[f64], points: usize) -> Option<usize> {
    let mut lowest = f64::INFINITY;
    let mut best: Option<(usize, f64)> = None;
    for lag in 1..correlation.len().saturating_sub(1) {
        let c = correlation[lag];
        lowest = lowest.min(c);
        let peak = c >= correlation[lag - 1] && c >= correlation[lag + 1];
        let noise = (MIN_STANDARD_ERRORS / float(points - lag).sqrt())
            .clamp(MIN_CORRELATION, MAX_THRESHOLD);
        let rises = c > noise && c - lowest > MIN_RISE;
        // A multiple of the season has about the same correlation: the later
        // peak must be clearly stronger to win.
        if lag > 1 && peak && rises && best.is_none_or(|(_, b)| c > b + 0.1) {
            best = Some((lag, c));
        }
    }
    best.map(|(lag, _)| lag)
}

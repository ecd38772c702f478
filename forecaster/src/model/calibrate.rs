//! Split-conformal intervals and breach probabilities from the residuals of
//! rolling origins.

use super::float;

/// Residuals a step needs for quantiles of its own; below that all steps are
/// pooled, each scaled by its typical size.
const OWN_QUANTILES: usize = 39;
/// Residuals a step needs for a typical size of its own; further steps grow by
/// the square root of the horizon, as a random walk does.
const OWN_SCALE: usize = 4;

/// Signed residuals, actual − forecast: one path an origin, one value a step.
/// Paths of late origins are shorter than the horizon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Residuals {
    paths: Vec<Vec<f64>>,
    scale: Vec<f64>,
}

impl Residuals {
    /// Takes the paths of all origins; empty ones are left out.
    #[must_use]
    pub fn new(mut paths: Vec<Vec<f64>>, horizon: usize) -> Self {
        paths.retain(|p| !p.is_empty());
        let scale = scales(&paths, horizon);
        Self { paths, scale }
    }

    /// Number of origins.
    #[must_use]
    pub fn origins(&self) -> usize {
        self.paths.len()
    }

    /// What to add to the point forecast at each of the quantiles
    /// `(1 − level) / 2` and `1 − (1 − level) / 2`, for each step. The band
    /// never narrows with the horizon and always holds the point forecast.
    #[must_use]
    pub fn band(&self, level: f64) -> Vec<(f64, f64)> {
        let pooled = self.pooled();
        // Residuals of one origin are alike, so origins count, not values.
        let effective = self.paths.len();
        let tail = f64::midpoint(1.0, level);
        let (low, high) = (
            quantile(&pooled, 1.0 - tail, effective),
            quantile(&pooled, tail, effective),
        );
        let (mut lowest, mut highest) = (0.0_f64, 0.0_f64);
        let steps = self.scale.iter().enumerate().map(|(step, scale)| {
            let own = self.step(step);
            let (l, h) = if own.len() >= OWN_QUANTILES {
                (
                    quantile(&own, 1.0 - tail, own.len()),
                    quantile(&own, tail, own.len()),
                )
            } else {
                (low * scale, high * scale)
            };
            (lowest, highest) = (lowest.min(l), highest.max(h));
            (lowest, highest)
        });
        steps.collect()
    }

    /// Probability that the series reaches `limit` within the horizon: the
    /// share of residual paths that carry the forecast's maximum there, with
    /// one further path that does not.
    #[must_use]
    pub fn p_breach(&self, point: &[f64], limit: f64) -> f64 {
        let breaches = self
            .paths
            .iter()
            .filter(|path| self.maximum(point, path) >= limit)
            .count();
        float(breaches) / float(self.paths.len() + 1)
    }

    /// Share of the later half of the origins' values inside the `level` band
    /// calibrated on the earlier half; `None` with fewer than 8 origins.
    #[must_use]
    pub fn coverage(&self, level: f64) -> Option<f64> {
        if self.paths.len() < 8 {
            return None;
        }
        let (past, later) = self.paths.split_at(self.paths.len() / 2);
        let band = Self::new(past.to_vec(), self.scale.len()).band(level);
        let inside = |(r, (low, high)): (&f64, &(f64, f64))| (low..=high).contains(&r);
        let all: usize = later.iter().map(Vec::len).sum();
        let hits: usize = later
            .iter()
            .map(|p| p.iter().zip(&band).filter(|x| inside(*x)).count())
            .sum();
        Some(float(hits) / float(all))
    }

    fn maximum(&self, point: &[f64], path: &[f64]) -> f64 {
        let last = path.len() - 1;
        let at = |step: usize| match path.get(step) {
            Some(r) => *r,
            // Beyond a short path its last residual grows as the scale does.
            None if self.scale[last] > 0.0 => path[last] * self.scale[step] / self.scale[last],
            None => path[last],
        };
        point
            .iter()
            .enumerate()
            .map(|(step, p)| p + at(step))
            .fold(f64::NEG_INFINITY, f64::max)
    }

    fn step(&self, step: usize) -> Vec<f64> {
        sorted(self.paths.iter().filter_map(|p| p.get(step).copied()))
    }

    fn pooled(&self) -> Vec<f64> {
        let scaled = |path: &Vec<f64>| {
            let values = path
                .iter()
                .zip(&self.scale)
                .filter(|(_, s)| **s > 0.0)
                .map(|(r, s)| r / s);
            values.collect::<Vec<_>>()
        };
        sorted(self.paths.iter().flat_map(scaled))
    }
}

fn scales(paths: &[Vec<f64>], horizon: usize) -> Vec<f64> {
    let mut scale: Vec<f64> = Vec::with_capacity(horizon);
    for step in 0..horizon {
        let (sum, count) = paths
            .iter()
            .filter_map(|p| p.get(step))
            .fold((0.0, 0), |(s, n), r| (s + r.abs(), n + 1));
        let before = scale.last().copied().unwrap_or(0.0);
        let own = if count >= OWN_SCALE.min(paths.len()) && count > 0 {
            sum / float(count)
        } else {
            before * (float(step + 1) / float(step.max(1))).sqrt()
        };
        scale.push(own.max(before));
    }
    scale
}

/// Conformal quantile of sorted values: the rank is taken for `effective + 1`
/// exchangeable values. Where that rank lies outside of the sample the extreme
/// value is widened by the share that is missing.
fn quantile(sorted: &[f64], p: f64, effective: usize) -> f64 {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
        return 0.0;
    };
    let n = float(effective.max(1));
    // Symmetric about the median: p' - 1/2 = (p - 1/2)(n + 1)/n.
    let corrected = 0.5 + (p - 0.5) * (n + 1.0) / n;
    let excess = (corrected - 1.0).max(-corrected).max(0.0);
    if excess > 0.0 {
        let extreme = if corrected > 0.5 { last } else { first };
        let spread = (last - first).abs() * excess * n.sqrt();
        return if corrected > 0.5 {
            extreme + spread
        } else {
            extreme - spread
        };
    }
    let position = corrected * float(sorted.len() - 1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 ≤ position < len"
    )]
    let index = position.floor() as usize;
    let (a, b) = (sorted[index], sorted[(index + 1).min(sorted.len() - 1)]);
    a + (b - a) * (position - float(index))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

//! Straight lines: drift over the whole series, and a robust line through its
//! latest part.

use super::{Fitted, Model, ModelError, float};

/// The line from the first to the last value goes on.
pub struct Drift;

impl Model for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError> {
        let (Some(first), Some(last)) = (series.first(), series.last()) else {
            return Err(too_short(self.name(), series));
        };
        if series.len() < 2 {
            return Err(too_short(self.name(), series));
        }
        let slope = (last - first) / float(series.len() - 1);
        Ok(Box::new(Line {
            level: *last,
            slope,
        }))
    }
}

/// The least-squares line through the last `points` values goes on. It sees a
/// ramp that drift over a long flat history does not.
pub struct RecentTrend {
    /// Points that the line is laid through.
    pub points: usize,
}

impl Model for RecentTrend {
    fn name(&self) -> &'static str {
        "recent_trend"
    }

    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError> {
        let recent = &series[series.len().saturating_sub(self.points.max(3))..];
        if recent.len() < 3 {
            return Err(too_short(self.name(), series));
        }
        let (intercept, slope) = least_squares(recent);
        let level = intercept + slope * float(recent.len() - 1);
        Ok(Box::new(Line { level, slope }))
    }
}

/// Intercept (at the first point) and slope per step of the least-squares line.
pub(super) fn least_squares(y: &[f64]) -> (f64, f64) {
    let n = float(y.len());
    let mean_x = (n - 1.0) / 2.0;
    let mean_y = y.iter().sum::<f64>() / n;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (i, v) in y.iter().enumerate() {
        let dx = float(i) - mean_x;
        covariance += dx * (v - mean_y);
        variance += dx * dx;
    }
    let slope = if variance > 0.0 {
        covariance / variance
    } else {
        0.0
    };
    (mean_y - slope * mean_x, slope)
}

struct Line {
    level: f64,
    slope: f64,
}

impl Fitted for Line {
    fn predict(&self, horizon: usize) -> Result<Vec<f64>, ModelError> {
        Ok((1..=horizon)
            .map(|h| self.level + self.slope * float(h))
            .collect())
    }
}

fn too_short(model: &'static str, series: &[f64]) -> ModelError {
    ModelError::TooShort {
        model,
        needs: 3,
        got: series.len(),
    }
}

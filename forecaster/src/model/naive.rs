//! Last value and seasonal naive: the controls every other model has to beat.

use super::{Fitted, Model, ModelError};

/// The last value goes on.
pub struct LastValue;

impl Model for LastValue {
    fn name(&self) -> &'static str {
        "last_value"
    }

    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError> {
        cycle(self.name(), series, 1)
    }
}

/// The last season repeats itself; the last value where the series is shorter
/// than one season.
pub struct SeasonalNaive {
    /// Steps in a season, at least 1.
    pub season: usize,
}

impl Model for SeasonalNaive {
    fn name(&self) -> &'static str {
        "seasonal_naive"
    }

    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError> {
        let season = if series.len() < self.season {
            1
        } else {
            self.season.max(1)
        };
        cycle(self.name(), series, season)
    }
}

struct Cycle(Vec<f64>);

impl Fitted for Cycle {
    fn predict(&self, horizon: usize) -> Result<Vec<f64>, ModelError> {
        Ok(self.0.iter().copied().cycle().take(horizon).collect())
    }
}

fn cycle(
    model: &'static str,
    series: &[f64],
    season: usize,
) -> Result<Box<dyn Fitted>, ModelError> {
    let start = series
        .len()
        .checked_sub(season)
        .filter(|_| !series.is_empty());
    let start = start.ok_or(ModelError::TooShort {
        model,
        needs: season,
        got: series.len(),
    })?;
    Ok(Box::new(Cycle(series[start..].to_vec())))
}

//! Which model answers: the one with the least error over rolling origins.

use super::calibrate::Residuals;
use super::ets::Ets;
use super::mstl::MstlEts;
use super::naive::{LastValue, SeasonalNaive};
use super::season;
use super::trend::{Drift, RecentTrend};
use super::{Model, ModelError, float};

/// Origins for models that cost microseconds.
const ORIGINS: usize = 40;
/// Every fourth of them for models that cost milliseconds.
const EXPENSIVE_STRIDE: usize = 4;
/// Fewest points that a forecast is made from: three give two residuals.
const MIN_POINTS: usize = 3;

/// What a forecast is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Steps ahead, at least 1.
    pub horizon: usize,
    /// Steps in a season; `None` detects it.
    pub season: Option<usize>,
    /// Largest value the series can take, such as a VM's number of vCPUs.
    pub upper: Option<f64>,
}

/// A chosen model with its residuals. It stays usable while the series grows.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Name of the model.
    pub model: &'static str,
    /// Steps in the season; 1 is none.
    pub season: usize,
    /// 1 − error / error of seasonal naive; `None` where that error is 0.
    pub skill: Option<f64>,
    /// Share of kept-out residuals inside the 90 % interval; `None` with few origins.
    pub coverage_90: Option<f64>,
    residuals: Residuals,
}

/// A forecast with its intervals, one value a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Lower end of the 90 % interval.
    pub p05: Vec<f64>,
    /// Lower end of the 80 % interval.
    pub p10: Vec<f64>,
    /// Point forecast.
    pub p50: Vec<f64>,
    /// Upper end of the 80 % interval.
    pub p90: Vec<f64>,
    /// Upper end of the 90 % interval.
    pub p95: Vec<f64>,
    /// Model that answered.
    pub model: &'static str,
    raw: Vec<f64>,
    residuals: Residuals,
}

impl Prediction {
    /// Probability that the series reaches `limit` within the horizon.
    #[must_use]
    pub fn p_breach(&self, limit: f64) -> f64 {
        self.residuals.p_breach(&self.raw, limit)
    }
}

/// Chooses a model for a series (oldest first, all finite).
///
/// # Errors
/// Fewer than three points.
pub fn select(series: &[f64], options: &Options) -> Result<Selection, ModelError> {
    if series.len() < MIN_POINTS {
        return Err(ModelError::TooShort {
            model: "selection",
            needs: MIN_POINTS,
            got: series.len(),
        });
    }
    let season = options
        .season
        .or_else(|| season::detect(series))
        .unwrap_or(1)
        .max(1);
    let origins = origins(series.len(), season);
    let horizon = options.horizon;
    let baseline = SeasonalNaive { season };
    let control = evaluate(&baseline, series, &origins, horizon);
    let control_error = error(&control, 1);
    let mut best = (baseline.name(), control_error, control.clone());
    for (model, stride) in candidates(season, horizon) {
        let chosen: Vec<usize> = origins
            .iter()
            .rev()
            .step_by(stride)
            .rev()
            .copied()
            .collect();
        let paths = evaluate(model.as_ref(), series, &chosen, horizon);
        // On the same origins as the control, so that errors compare.
        let relative = error(&paths, 1) / error(&control, stride).max(f64::MIN_POSITIVE);
        let comparable = relative * control_error;
        // 2 % better at least: a tie goes to the simpler model before it.
        if comparable < best.1 * 0.98 {
            best = (model.name(), comparable, paths);
        }
    }
    let residuals = Residuals::new(best.2, horizon);
    let skill = (control_error > 0.0).then(|| 1.0 - best.1 / control_error);
    Ok(Selection {
        model: best.0,
        season,
        skill,
        coverage_90: residuals.coverage(0.9),
        residuals,
    })
}

/// Forecasts with a chosen model; where it does not fit any more the last
/// value answers.
///
/// # Errors
/// An empty series.
pub fn predict(
    selection: &Selection,
    series: &[f64],
    options: &Options,
) -> Result<Prediction, ModelError> {
    let model = by_name(selection.model, selection.season, options.horizon);
    let chosen = model.fit(series).and_then(|f| f.predict(options.horizon));
    let (raw, model) = match chosen {
        Ok(raw) => (raw, selection.model),
        Err(_) => (
            LastValue.fit(series)?.predict(options.horizon)?,
            LastValue.name(),
        ),
    };
    let bound = |v: f64| v.max(0.0).min(options.upper.unwrap_or(f64::INFINITY));
    let edge = |band: &[(f64, f64)], upper: bool| {
        let shifted = raw
            .iter()
            .zip(band)
            .map(|(p, (low, high))| bound(p + if upper { high } else { low }));
        shifted.collect::<Vec<_>>()
    };
    let (eighty, ninety) = (selection.residuals.band(0.8), selection.residuals.band(0.9));
    Ok(Prediction {
        p05: edge(&ninety, false),
        p10: edge(&eighty, false),
        p50: raw.iter().map(|v| bound(*v)).collect(),
        p90: edge(&eighty, true),
        p95: edge(&ninety, true),
        model,
        residuals: selection.residuals.clone(),
        raw,
    })
}

/// Models with the stride of their origins, simplest first.
fn candidates(season: usize, horizon: usize) -> Vec<(Box<dyn Model>, usize)> {
    let mut models = Vec::new();
    if season > 1 {
        models.push((by_name("last_value", season, horizon), 1));
    }
    models.push((by_name("drift", season, horizon), 1));
    models.push((by_name("recent_trend", season, horizon), 1));
    models.push((by_name("ets", season, horizon), EXPENSIVE_STRIDE));
    if season > 1 {
        models.push((by_name("mstl+ets", season, horizon), EXPENSIVE_STRIDE));
    }
    models
}

fn by_name(name: &str, season: usize, horizon: usize) -> Box<dyn Model> {
    match name {
        "last_value" => Box::new(LastValue),
        "drift" => Box::new(Drift),
        // Half the horizon: shorter lines swing with noise, longer ones see a
        // ramp too late.
        "recent_trend" => Box::new(RecentTrend {
            points: (horizon / 2).clamp(8, 60),
        }),
        "ets" => Box::new(Ets),
        "mstl+ets" => Box::new(MstlEts { season }),
        _ => Box::new(SeasonalNaive { season }),
    }
}

/// Lengths of history to forecast from, evenly spread, oldest first.
fn origins(points: usize, season: usize) -> Vec<usize> {
    let shortest = (points / 3).max(if 3 * season < points {
        2 * season + 1
    } else {
        2
    });
    let shortest = shortest.min(points - 1);
    let spread = points - 1 - shortest;
    let count = ORIGINS.min(spread + 1);
    let mut origins: Vec<usize> = (0..count)
        .map(|i| points - 1 - i * spread / count.saturating_sub(1).max(1))
        .collect();
    origins.reverse();
    origins
}

/// Residual path of each origin. Where the model does not fit, the last value
/// stands in: it gains nothing there.
fn evaluate(model: &dyn Model, series: &[f64], origins: &[usize], horizon: usize) -> Vec<Vec<f64>> {
    let path = |origin: &usize| {
        let (past, future) = series.split_at(*origin);
        let steps = horizon.min(future.len());
        let forecast = model.fit(past).and_then(|f| f.predict(steps));
        let forecast = forecast
            .or_else(|_| LastValue.fit(past)?.predict(steps))
            .unwrap_or_default();
        future
            .iter()
            .zip(&forecast)
            .map(|(actual, f)| actual - f)
            .collect::<Vec<f64>>()
    };
    origins.iter().map(path).collect()
}

/// Mean absolute error over every `stride`-th path from the latest back; a
/// path's weight halves over half of the paths, so that a new regime counts.
fn error(paths: &[Vec<f64>], stride: usize) -> f64 {
    let used: Vec<&Vec<f64>> = paths
        .iter()
        .rev()
        .step_by(stride)
        .filter(|p| !p.is_empty())
        .collect();
    let half = float(used.len()) / 2.0;
    let (mut sum, mut weights) = (0.0, 0.0);
    for (age, path) in used.iter().enumerate() {
        let weight = 0.5_f64.powf(float(age) / half.max(1.0));
        sum += weight * path.iter().map(|r| r.abs()).sum::<f64>() / float(path.len());
        weights += weight;
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

#[cfg(test)]
impl Selection {
    pub(super) fn residuals_for_test(&self) -> &Residuals {
        &self.residuals
    }
}

//! Exponential smoothing by augurs.

use augurs::ets::AutoETS;
use augurs::{Fit, Predict};

use super::{Fitted, Model, ModelError};

/// Points an ETS model is estimated on: older ones have no weight left in
/// exponential smoothing, and the estimation's cost grows with them.
pub const MAX_POINTS: usize = 160;
const MIN_POINTS: usize = 8;

/// Non-seasonal ETS with additive error, form chosen by AICc. Multiplicative
/// errors are left out: on near-idle VMs they explode.
pub struct Ets;

impl Model for Ets {
    fn name(&self) -> &'static str {
        "ets"
    }

    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError> {
        if series.len() < MIN_POINTS {
            return Err(ModelError::TooShort {
                model: self.name(),
                needs: MIN_POINTS,
                got: series.len(),
            });
        }
        let recent = &series[series.len().saturating_sub(MAX_POINTS)..];
        let fitted = search().and_then(|s| s.fit(recent));
        let fitted = fitted.map_err(|e| ModelError::Fit {
            model: self.name(),
            problem: e.to_string(),
        })?;
        Ok(Box::new(Augurs {
            name: self.name(),
            fitted,
        }))
    }
}

/// The search augurs does: no, additive or damped additive trend.
pub(super) fn search() -> Result<AutoETS, augurs::ets::Error> {
    AutoETS::new(1, "AZN")
}

/// A model fitted by augurs.
pub(super) struct Augurs<F> {
    pub name: &'static str,
    pub fitted: F,
}

impl<F: Predict> Fitted for Augurs<F> {
    fn predict(&self, horizon: usize) -> Result<Vec<f64>, ModelError> {
        let problem = |problem| ModelError::Fit {
            model: self.name,
            problem,
        };
        let forecast = self
            .fitted
            .predict(horizon, None)
            .map_err(|e| problem(e.to_string()))?;
        if forecast.point.len() != horizon || forecast.point.iter().any(|v| !v.is_finite()) {
            return Err(problem("its forecast is not finite".into()));
        }
        Ok(forecast.point)
    }
}

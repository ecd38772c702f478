//! Models of one series, their choice by rolling-origin error, and intervals
//! calibrated on the same origins.
//!
//! **Invariant:** augurs is used in here and nowhere else, and no model's own
//! interval is ever shown: intervals come from residuals (`calibrate`), because
//! model assumptions miss (MSTL's own 80 % covers 70 % on VM traces).

mod calibrate;
mod ets;
mod mstl;
mod naive;
mod season;
mod select;
mod trend;

pub use calibrate::Residuals;
pub use season::detect as detect_season;
pub use select::{Options, Prediction, Selection, predict, select};

/// Why a model gives no forecast.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The series has fewer points than the model needs.
    #[error("{model} needs {needs} points, the series has {got}")]
    TooShort {
        /// Name of the model.
        model: &'static str,
        /// Points needed.
        needs: usize,
        /// Points there.
        got: usize,
    },
    /// The fit failed, or forecast no finite number.
    #[error("{model} does not fit: {problem}")]
    Fit {
        /// Name of the model.
        model: &'static str,
        /// What went wrong.
        problem: String,
    },
}

/// A kind of model. Implementations are stateless and cheap to make.
pub trait Model: Send + Sync {
    /// Name as stored with the forecast.
    fn name(&self) -> &'static str;

    /// Estimates the model on a series without missing values, oldest first.
    ///
    /// # Errors
    /// Too few points, or a fit that does not converge.
    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError>;
}

/// An estimated model.
pub trait Fitted {
    /// Point forecasts of the `horizon` steps after the series, all finite.
    ///
    /// # Errors
    /// A forecast that is not finite.
    fn predict(&self, horizon: usize) -> Result<Vec<f64>, ModelError>;
}

/// A count as a float. Counts here stay far below 2^52.
pub(crate) fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests;

//! Seasonal decomposition (MSTL) with ETS on the deseasonalised series, by augurs.

use augurs::Fit;
use augurs::mstl::MSTLModel;

use super::{Fitted, Model, ModelError, ets};

/// MSTL + ETS for one season.
pub struct MstlEts {
    /// Steps in a season, at least 2.
    pub season: usize,
}

impl Model for MstlEts {
    fn name(&self) -> &'static str {
        "mstl+ets"
    }

    fn fit(&self, series: &[f64]) -> Result<Box<dyn Fitted>, ModelError> {
        let needs = 2 * self.season + 1;
        if series.len() < needs || self.season < 2 {
            return Err(ModelError::TooShort {
                model: self.name(),
                needs,
                got: series.len(),
            });
        }
        // Older seasons than the last six add cost and no accuracy here.
        let recent = &series[series
            .len()
            .saturating_sub((6 * self.season).max(ets::MAX_POINTS))..];
        let problem = |problem| ModelError::Fit {
            model: self.name(),
            problem,
        };
        let trend = ets::search()
            .map_err(|e| problem(e.to_string()))?
            .into_trend_model();
        let fitted = MSTLModel::new(vec![self.season], trend)
            .fit(recent)
            .map_err(|e| problem(e.to_string()))?;
        Ok(Box::new(ets::Augurs {
            name: self.name(),
            fitted,
        }))
    }
}

//! Forecasts and recommendations.

use crate::batch::{Cell as _, ColumnData, Row};
use crate::metric::{Column, Kind, Roll, Table, Unit};

table! {
    FORECASTS "forecasts", ForecastRow, sort ["subject", "metric", "made_at", "ts"], "One step of one forecast.";
    made_at: time Utc "when the forecast was made";
    ts: time Utc "time forecast";
    subject: text None "vm/ID or host/NAME";
    metric: text None "demand_vcpus or ready_ratio";
    p05: float OfMetric "lower end of the 90 % interval";
    p10: float OfMetric "lower end of the 80 % interval";
    p50: float OfMetric "point forecast";
    p90: float OfMetric "upper end of the 80 % interval";
    p95: float OfMetric "upper end of the 90 % interval";
    model: text None "model chosen by rolling-origin error";
    skill: opt_float Ratio "1 - error / error of seasonal naive on the rolling origins; unavailable when that error is 0";
}

table! {
    RECOMMENDATION_LOG "recommendation_log", RecommendationRow, sort ["id", "ts"], "One state of one recommendation; view recommendations shows the latest.";
    ts: time Utc "when the state was reached";
    id: text None "ULID with prefix rec_";
    made_at: time Utc "when the recommendation was made";
    kind: text None "scale_up, capacity, migrate, ...";
    subject: text None "vm/ID or host/NAME";
    confidence: float Ratio "probability that acting is right";
    state: text None "proposed, delivered, expired or withdrawn";
    payload: text None "CloudEvents JSON as signed and sent";
}

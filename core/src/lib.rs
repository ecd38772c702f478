//! headroom's domain: units, histograms, rows, the metric catalogue and the
//! Prometheus series made from it.
//!
//! **Invariant:** no IO, no async, no clock, no serde and no unsafe in here.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod batch;
pub mod exposition;
pub mod hist;
pub mod metric;
pub mod rollup;
pub mod rows;
pub mod series;
pub mod units;

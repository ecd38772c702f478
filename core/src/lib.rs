//! headroom's domain: units, histograms, rows and the metric catalogue.
//!
//! **Invariant:** no IO, no async, no clock, no serde and no unsafe in here.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod batch;
pub mod hist;
pub mod metric;
pub mod rollup;
pub mod rows;
pub mod units;

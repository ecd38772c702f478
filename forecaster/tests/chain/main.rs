//! The forecaster against a Query and Ingest server and an HTTP receiver that
//! run in the test. All windows are synthetic: made here from a formula.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod collector;
mod delivery;
mod history;
mod python;
mod ramp;
mod receiver;

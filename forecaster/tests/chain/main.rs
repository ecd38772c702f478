//! The forecaster against a Query and Ingest server and an HTTP receiver that
//! run in the test. All windows are synthetic: made here from a formula.

mod collector;
mod delivery;
mod history;
mod python;
mod ramp;
mod receiver;

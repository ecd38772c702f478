//! A fleet that does not exist: hosts and VMs whose demand follows real series,
//! shipped over the real protocol, so that a collector can be measured and
//! dashboards have something to show. No root, no KVM, no store.
//!
//! Everything is determined by the seed and the time asked for.
#![forbid(unsafe_code)]

pub mod batch;
pub mod model;
pub mod push;
pub mod series;
pub mod share;

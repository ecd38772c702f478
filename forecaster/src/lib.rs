//! History to forecast to recommendation.
//!
//! Every `every`: read history by SQL ([`history`]), forecast each series with
//! the model that errs least ([`model`]), store the forecasts ([`push`]), let
//! the plans pass that deserve it ([`gate`]), and deliver them, signed, from a
//! durable outbox ([`notify`]).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod config;
mod durable;
pub mod gate;
pub mod history;
pub mod model;
pub mod notify;
pub mod push;
mod service;

pub use config::{Config, ConfigError, Raw};
pub use service::{Choices, forecast_all, run};

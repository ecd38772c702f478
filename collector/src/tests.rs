//! The whole collector in this process, spoken to over a real connection.

pub mod harness;

mod durability;
mod end_to_end;
mod hostile;
mod http;
mod remote_write;

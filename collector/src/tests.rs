//! The whole collector in this process, spoken to over a real connection.

mod dashboards;
pub mod harness;

mod durability;
mod end_to_end;
mod hostile;
mod hostile_sql;
mod http;
mod remote_write;

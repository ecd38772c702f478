//! The way of the rows to the collector: a bounded queue in memory and one
//! stream, batch after batch.
//!
//! **Invariant:** at most one batch is on its way. It has the next sequence
//! number, keeps it over every reconnection and is never dropped in favour of
//! newer ones; all others get their numbers when it is acked. So the numbers
//! have no gaps when the queue overflows, the count of dropped rows is exact
//! (what was dropped was never sent), and a refused batch is never overtaken.
//! A batch takes one round trip and one fdatasync: some 100 a second, where
//! an agent makes one in 10 s.

mod backoff;
mod client;
mod identity;
mod queue;

pub use backoff::Backoff;
pub use client::{ShipError, channel, ship};
pub use identity::{Identity, IdentityError};
pub use queue::{Queue, QueueStats};

//! The way of the rows to the collector: a queue that goes over the disk and
//! one stream, batch after batch.
//!
//! **Invariant:** a batch gets its number when it is pushed and keeps it over
//! every reconnection and restart; it is on the disk with it. One that comes
//! twice is told by its name.
//!
//! **Invariant:** at most one batch is on its way, the oldest. It is never
//! dropped in favour of newer ones, so the count of dropped rows is exact
//! (what was dropped was never sent), and a refused batch is never overtaken.
//! What is dropped leaves a gap in the numbers; the collector only asks for
//! ascending ones. A batch takes one round trip and one fdatasync: some 100 a
//! second, where an agent makes one in 10 s.

mod backoff;
mod client;
mod identity;
mod keeper;
mod queue;
mod spool;

pub use backoff::Backoff;
pub use client::{ShipError, channel, endpoint, ship};
pub use identity::{Identity, IdentityError};
pub use keeper::{Keeper, keep};
pub use queue::{Queue, QueueStats};
pub use spool::{Amount, Left, Next, Place, Spool};

//! Rows that say what is measured and what is not.

use headroom_core::batch::Chunk;
use headroom_core::rows::ProbeRow;

use super::observe::FamilyStatus;
use super::rows::Frame;

/// One row a family.
pub fn rows(frame: &Frame<'_>, families: &[FamilyStatus]) -> Chunk {
    let state = |family: &FamilyStatus| match (&family.source, &family.reason) {
        (Some(_), None) => "attached",
        (Some(_), Some(_)) => "partial",
        (None, _) => "unavailable",
    };
    let row = |family: &FamilyStatus| ProbeRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        family: family.family.to_owned(),
        state: state(family).to_owned(),
        source: family.source.clone(),
        reason: family.reason.clone(),
    };
    Chunk::of(&families.iter().map(row).collect::<Vec<_>>())
}

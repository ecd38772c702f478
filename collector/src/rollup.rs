//! Roll-ups: rows of steps made of rows of windows, and when they are made.
//!
//! **Invariant:** what is to be done follows from the tables alone. A roll-up
//! is made anew, in one commit that replaces what it touches, until it holds
//! as many windows of an hour as its source; so it is neither missing nor
//! doubled, wherever the process ended.

mod acc;
mod due;
mod fold;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray as _, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use futures::StreamExt as _;
use headroom_core::metric::Table;
use headroom_core::rollup::{Rollup, rollups, stored};
use tokio::task::block_in_place;

use crate::error::chain;
use crate::store::{DataFile, Exchange, FileWriter, NewFile, Store, date, hour_of};
use crate::{Error, merger, query, schema};
use due::{Known, due};
use fold::Fold;

/// Memory of the sorted stream of one day's files.
const MEMORY: usize = 256 << 20;
/// Rows that are handed to a file at once.
const ROWS: usize = 4096;
/// Of a file of roll-ups: an hour has one, as when its files were merged.
const GENERATION: u8 = 2;

/// Makes roll-ups and lets go of what is too old.
#[derive(Debug, Default)]
pub struct Roller {
    known: Known,
}

/// Hours of a day, by roll-up.
type Work = Vec<(&'static Rollup, BTreeSet<i64>)>;

/// What one pass over a source's rows of a day makes.
struct Pass {
    source: &'static Table,
    day: i64,
    work: Work,
}

impl Roller {
    /// Every roll-up that is due at that time, µs since 1970 UTC, until it is
    /// to `stop`; gives the number of commits. What fails is left until the
    /// next call.
    pub async fn roll_all(
        &mut self,
        store: &Store,
        now_us: i64,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> u64 {
        let mut commits = 0;
        // Roll-ups come after their sources, so days find their hours made.
        for source in stored() {
            for (day, work) in self.due(store, source, now_us) {
                if stop() {
                    return commits;
                }
                let pass = Pass { source, day, work };
                match self.roll(store, pass, stop).await {
                    Ok(done) => commits += done,
                    Err(error) => {
                        tracing::warn!(table = source.name, day = date(day), error = %chain(&error), "not rolled up");
                    }
                }
            }
        }
        commits
    }

    /// Takes whole files out of the tables whose rows are all too old at that
    /// time, µs since 1970 UTC; gives their number. What is not rolled up yet
    /// stays.
    pub async fn retire_all(&mut self, store: &Store, now_us: i64) -> u64 {
        let mut gone = 0;
        for (table, declared) in stored().iter().enumerate() {
            let keep = store.keep().of(declared).as_micros();
            let before = now_us.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
            let mut old = store.older(table, before);
            if old.is_empty() {
                continue;
            }
            let open: BTreeSet<i64> = block_in_place(|| self.due(store, declared, i64::MAX / 2))
                .into_values()
                .flatten()
                .flat_map(|(_, hours)| hours)
                .collect();
            old.retain(|file| {
                let hours = self.known.file(store, table, file);
                hours.keys().all(|hour| !open.contains(hour))
            });
            if old.is_empty() {
                continue;
            }
            match store.retire(table, &old).await {
                Ok(()) => {
                    gone += old.len() as u64;
                    let rows: u64 = old.iter().map(|f| f.bounds.rows).sum();
                    tracing::info!(
                        table = declared.name,
                        files = old.len(),
                        rows,
                        "rows too old to keep taken out"
                    );
                }
                Err(error) => {
                    tracing::warn!(table = declared.name, error = %chain(&error), "old rows not taken out");
                }
            }
        }
        gone
    }

    /// Hours of a table that are to be rolled up, by day.
    fn due(&mut self, store: &Store, source: &'static Table, now_us: i64) -> BTreeMap<i64, Work> {
        let mut days = BTreeMap::<i64, Work>::new();
        let of_it = rollups().iter().filter(|r| r.source.name == source.name);
        let mut windows = None;
        for rollup in of_it {
            let (table, made) = (schema::index(source), schema::index(rollup.table));
            let known = &mut self.known;
            let (windows, made) = block_in_place(|| {
                let windows = &*windows.get_or_insert_with(|| known.table(store, table));
                (windows, known.table(store, made))
            });
            for (day, hours) in due(rollup, windows, &made, now_us) {
                days.entry(day).or_default().push((rollup, hours));
            }
        }
        days
    }

    /// One pass over the source's rows of a day; gives the number of commits.
    async fn roll(
        &mut self,
        store: &Store,
        pass: Pass,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<u64, Error> {
        let Pass { source, day, work } = pass;
        let table = schema::index(source);
        let all: BTreeSet<i64> = work.iter().flat_map(|(_, hours)| hours).copied().collect();
        let files = block_in_place(|| self.known.files_of(store, table, &all));
        let mut parts = Vec::new();
        for (rollup, hours) in work {
            parts.push(Part::begin(store, rollup, hours, day)?);
        }
        let failed = || Error::table("roll up", source.name);
        let mut rows =
            query::sorted(table, &store.table_dir(table), &files, MEMORY).map_err(failed())?;
        while let Some(batch) = rows.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    merger::set_aside_unreadable(store, table, &files).await?;
                    return Err(failed()(error));
                }
            };
            if stop() {
                return Ok(0);
            }
            for part in &mut parts {
                block_in_place(|| part.add(&batch))?;
            }
        }
        let mut commits = 0;
        for part in parts {
            commits += self.commit(store, part, day).await?;
        }
        Ok(commits)
    }

    /// Puts the new rows in the place of those of the same hours.
    async fn commit(&mut self, store: &Store, part: Part, day: i64) -> Result<u64, Error> {
        let (table, hours) = (part.table, part.hours.clone());
        let old = block_in_place(|| self.known.files_of(store, table, &hours));
        let Some(made) = block_in_place(|| part.finish())? else {
            return Ok(0);
        };
        let (rows, size) = (made.bounds.rows, made.size);
        let mut new = vec![made];
        let mixed: Vec<Arc<DataFile>> = old
            .iter()
            .filter(|file| {
                let has = self.known.file(store, table, file);
                has.keys().any(|hour| !hours.contains(hour))
            })
            .cloned()
            .collect();
        if !mixed.is_empty() {
            new.extend(others(store, table, &mixed, &hours, day).await?);
        }
        store.exchange(table, &old, new, Exchange::Rows).await?;
        tracing::debug!(
            table = stored()[table].name,
            day = date(day),
            hours = hours.len(),
            rows,
            size,
            replaced = old.len(),
            "rolled up"
        );
        Ok(1)
    }
}

/// The rows of other hours in files of a roll-up, in a file of their own.
async fn others(
    store: &Store,
    table: usize,
    files: &[Arc<DataFile>],
    hours: &BTreeSet<i64>,
    day: i64,
) -> Result<Option<NewFile>, Error> {
    let declared = stored()[table];
    let dir = store.table_dir(table);
    let failed = || Error::table("roll up into", declared.name);
    let mut writer = FileWriter::create(declared, &dir, &date(day), GENERATION)?;
    let mut rows = query::sorted(table, &dir, files, MEMORY).map_err(failed())?;
    let mut any = false;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(failed())?;
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let keep = times
            .values()
            .iter()
            .map(|us| !hours.contains(&hour_of(*us)));
        let keep: BooleanArray = keep.map(Some).collect();
        let kept = filter_record_batch(&batch, &keep)
            .map_err(Error::table("roll up into", declared.name))?;
        if kept.num_rows() > 0 {
            any = true;
            block_in_place(|| writer.write(&kept))?;
        }
    }
    any.then(|| block_in_place(|| writer.finish())).transpose()
}

/// A roll-up on its way to a file.
struct Part {
    table: usize,
    hours: BTreeSet<i64>,
    fold: Fold,
    writer: FileWriter,
    any: bool,
}

impl Part {
    fn begin(
        store: &Store,
        rollup: &'static Rollup,
        hours: BTreeSet<i64>,
        day: i64,
    ) -> Result<Self, Error> {
        let table = schema::index(rollup.table);
        let dir = store.table_dir(table);
        Ok(Self {
            table,
            fold: Fold::new(rollup, hours.clone())?,
            hours,
            writer: FileWriter::create(rollup.table, &dir, &date(day), GENERATION)?,
            any: false,
        })
    }

    fn add(&mut self, rows: &arrow::array::RecordBatch) -> Result<(), Error> {
        self.fold.add(rows);
        self.write(false)
    }

    fn write(&mut self, end: bool) -> Result<(), Error> {
        if let Some(rows) = self.fold.take(ROWS, end)? {
            self.any = true;
            self.writer.write(&rows)?;
        }
        Ok(())
    }

    /// The file; `None` if there is no row.
    fn finish(mut self) -> Result<Option<NewFile>, Error> {
        self.write(true)?;
        self.any.then(|| self.writer.finish()).transpose()
    }
}

#[cfg(test)]
mod tests;

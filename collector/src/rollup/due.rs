//! What is not rolled up yet, told from the number of windows that each table
//! holds of each hour.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use headroom_core::rollup::{HOUR_US, Rollup, stored};

use crate::Error;
use crate::store::{DataFile, Hours, Store};

/// How long after its end an hour, or a day, has its rows, late ones apart.
const OVER_US: i64 = 15 * 60_000_000;

/// Hours to roll up, by day. An hour in which the roll-up has more windows
/// than its source is left: the source lost some to retention or damage, and
/// the roll-up is what is left of them.
pub fn due(
    rollup: &Rollup,
    source: &Hours,
    made: &Hours,
    now_us: i64,
) -> BTreeMap<i64, BTreeSet<i64>> {
    let mut days = BTreeMap::<i64, BTreeSet<i64>>::new();
    let is_over = |hour: i64| now_us >= (hour + 1) * HOUR_US + OVER_US;
    if !rollup.is_second() {
        for (&hour, &windows) in source {
            if is_over(hour) && made.get(&hour).is_none_or(|n| *n < windows) {
                days.entry(hour.div_euclid(24)).or_default().insert(hour);
            }
        }
        return days;
    }
    let mut of_day = BTreeMap::<i64, i64>::new();
    for (hour, windows) in source {
        *of_day.entry(hour.div_euclid(24)).or_default() += windows;
    }
    for (day, windows) in of_day {
        // A day's row stands at the day's end.
        let last = day * 24 + 23;
        if is_over(last) && made.get(&last).is_none_or(|n| *n < windows) {
            days.insert(day, (day * 24..=last).collect());
        }
    }
    days
}

/// Windows by hour of the live files, read once a file.
#[derive(Debug, Default)]
pub struct Known {
    files: HashMap<(usize, String), Arc<Hours>>,
}

impl Known {
    /// Windows by hour of a table; unreadable files count for nothing.
    pub fn table(&mut self, store: &Store, table: usize) -> Hours {
        let files = Arc::clone(&store.snapshot().tables[table].files);
        let live: std::collections::HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
        self.files
            .retain(|(t, path), _| *t != table || live.contains(path.as_str()));
        let mut sum = Hours::new();
        for file in files.iter() {
            for (hour, windows) in self.file(store, table, file).iter() {
                *sum.entry(*hour).or_default() += windows;
            }
        }
        sum
    }

    /// Windows by hour of a file.
    pub fn file(&mut self, store: &Store, table: usize, file: &DataFile) -> Arc<Hours> {
        let key = (table, file.path.clone());
        if let Some(hours) = self.files.get(&key) {
            return Arc::clone(hours);
        }
        match store.hours(table, file) {
            Ok(hours) => {
                let hours = Arc::new(hours);
                self.files.insert(key, Arc::clone(&hours));
                hours
            }
            Err(error) => {
                let table = stored()[table].name;
                tracing::debug!(table, path = file.path, error = %crate::error::chain(&error), "windows not counted");
                Arc::default()
            }
        }
    }

    /// Live files of a table with windows of some hours.
    pub fn files_of(
        &mut self,
        store: &Store,
        table: usize,
        hours: &BTreeSet<i64>,
    ) -> Vec<Arc<DataFile>> {
        let files = Arc::clone(&store.snapshot().tables[table].files);
        let mut found = Vec::new();
        for file in files.iter() {
            let has = self.file(store, table, file);
            if has.keys().any(|hour| hours.contains(hour)) {
                found.push(Arc::clone(file));
            }
        }
        found
    }
}

impl Store {
    fn hours(&self, table: usize, file: &DataFile) -> Result<Hours, Error> {
        crate::store::hours_of(stored()[table], &self.table_dir(table).join(&file.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_core::rollup::rollups;

    fn of(name: &str) -> &'static Rollup {
        rollups().iter().find(|r| r.table.name == name).unwrap()
    }

    #[test]
    fn an_hour_is_due_when_it_is_over_and_has_more_windows() {
        let source = Hours::from([(24, 10), (25, 10), (26, 10)]);
        let made = Hours::from([(24, 10), (25, 9)]);
        let at = |us| due(of("vms_1m"), &source, &made, us);
        let over = |hour: i64| (hour + 1) * HOUR_US + OVER_US;
        assert!(at(over(25) - 1).is_empty());
        assert_eq!(at(over(25)), BTreeMap::from([(1, BTreeSet::from([25]))]));
        assert_eq!(
            at(over(26)),
            BTreeMap::from([(1, BTreeSet::from([25, 26]))])
        );
        let less = Hours::from([(24, 3)]);
        assert!(due(of("vms_1m"), &less, &made, over(99)).is_empty());
    }

    #[test]
    fn a_day_is_due_when_it_is_over() {
        let source = Hours::from([(24, 10), (30, 10)]);
        let at = |made: &Hours, us| due(of("vms_1d"), &source, made, us).len();
        let over = 48 * HOUR_US + OVER_US;
        assert_eq!(at(&Hours::new(), over - 1), 0);
        assert_eq!(at(&Hours::new(), over), 1);
        assert_eq!(at(&Hours::from([(47, 20)]), over), 0);
        assert_eq!(at(&Hours::from([(47, 19)]), over), 1);
    }
}

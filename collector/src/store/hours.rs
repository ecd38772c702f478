//! How many windows a file holds of each hour.
//!
//! Merges leave these numbers as they are, and so does rolling up: a roll-up's
//! column `windows` says of how many it was made. So what is not rolled up yet
//! is where the numbers of two tables differ; nothing else is kept about it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use headroom_core::metric::Table;
use headroom_core::rollup::{HOUR_US, WINDOWS};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;

use crate::Error;

/// Key of the Parquet footer.
const KEY: &str = "headroom.windows_by_hour";

const COUNT: &str = "count the windows of a file of";

/// Windows by hour.
pub type Hours = BTreeMap<i64, i64>;

/// The hour in which a window lies that ends then, µs since 1970 UTC; a window
/// that ends with the hour lies in it.
pub fn hour_of(us: i64) -> i64 {
    (us - 1).div_euclid(HOUR_US)
}

/// Adds the windows of some rows.
pub fn count(rows: &RecordBatch, into: &mut Hours) {
    let times = rows.column(0).as_primitive::<TimestampMicrosecondType>();
    let windows = rows
        .column_by_name(WINDOWS)
        .map(|c| c.as_primitive::<Int64Type>().values());
    for (i, us) in times.values().iter().enumerate() {
        *into.entry(hour_of(*us)).or_default() += windows.map_or(1, |w| w[i]);
    }
}

/// For the footer of a file.
pub fn note(hours: &Hours) -> KeyValue {
    let pairs: Vec<String> = hours.iter().map(|(h, n)| format!("{h}:{n}")).collect();
    KeyValue::new(KEY.to_owned(), pairs.join(","))
}

/// Windows by hour of a file, from its footer; counted where an older version
/// wrote it.
///
/// # Errors
/// The file can't be read.
pub fn read(table: &'static Table, path: &Path) -> Result<Hours, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(Error::table(COUNT, table.name))?;
    let meta = builder.metadata().file_metadata();
    let noted = meta.key_value_metadata().and_then(|all| {
        let entry = all.iter().find(|entry| entry.key == KEY)?;
        parse(entry.value.as_deref()?)
    });
    if let Some(hours) = noted {
        return Ok(hours);
    }
    let wanted = [table.columns[0].name, WINDOWS];
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    let rows = builder
        .with_projection(mask)
        .build()
        .map_err(Error::table(COUNT, table.name))?;
    let mut hours = Hours::new();
    for batch in rows {
        count(&batch.map_err(Error::table(COUNT, table.name))?, &mut hours);
    }
    Ok(hours)
}

fn parse(text: &str) -> Option<Hours> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (hour, count) = pair.split_once(':')?;
        Some((hour.parse().ok()?, count.parse().ok()?))
    };
    pairs.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_belongs_to_the_hour_that_it_ends() {
        assert_eq!(hour_of(HOUR_US), 0);
        assert_eq!(hour_of(HOUR_US + 1), 1);
        let hours = Hours::from([(3, 180_000), (4, 1)]);
        assert_eq!(parse(&note(&hours).value.unwrap()), Some(hours));
        assert_eq!(parse("x"), None);
    }
}

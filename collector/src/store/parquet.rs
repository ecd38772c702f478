//! Writing Parquet: sorted, one file a day of the rows, synced before anyone
//! hears of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::cast::AsArray as _;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use headroom_core::metric::{Kind, Table};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::hot::HotBatch;
use super::hours::{self, Hours};
use super::order;
use super::stats::Bounds;
use crate::Error;
use crate::schema;

/// Rows of one row group.
const ROW_GROUP: usize = 131_072;
/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// A file written and synced, not yet part of a table.
#[derive(Debug)]
pub struct NewFile {
    /// Path relative to the table's directory.
    pub path: String,
    /// Day of its rows, `YYYY-MM-DD`.
    pub date: String,
    /// Size, bytes.
    pub size: u64,
    /// Bounds of its columns.
    pub bounds: Bounds,
    temporary: PathBuf,
}

#[cfg(test)]
impl NewFile {
    /// One that is in its place already.
    pub fn in_place(dir: &Path, path: &str, bounds: Bounds) -> Self {
        let full = dir.join(path);
        Self {
            path: path.to_owned(),
            date: path[5..15].to_owned(),
            size: fs::metadata(&full).map_or(0, |meta| meta.len()),
            bounds,
            temporary: full,
        }
    }
}

/// Rows of one day, sorted.
pub struct Day {
    date: String,
    rows: RecordBatch,
}

/// The rows of a table, sorted and cut into days.
///
/// # Errors
/// Arrow can't sort them: a bug.
pub fn days(table: &'static Table, batches: &[Arc<HotBatch>]) -> Result<Vec<Day>, Error> {
    let failed = |source| Error::Rows {
        table: table.name,
        source,
    };
    let all = concat_batches(
        &schema::schema(schema::index(table)),
        batches.iter().map(|b| &b.rows),
    )
    .map_err(failed)?;
    let order = order::sorted(table, &all).map_err(failed)?;
    let times = all.column(0).as_primitive::<TimestampMicrosecondType>();
    let mut by_day = std::collections::BTreeMap::<i64, Vec<u32>>::new();
    for i in order {
        by_day
            .entry(times.value(i as usize).div_euclid(DAY_US))
            .or_default()
            .push(i);
    }
    let cut = |(day, rows): (i64, Vec<u32>)| {
        let rows = take_record_batch(&all, &UInt32Array::from(rows)).map_err(failed)?;
        Ok(Day {
            date: date(day),
            rows,
        })
    };
    by_day.into_iter().map(cut).collect()
}

/// Writes one day under a temporary name.
///
/// # Errors
/// The file can't be written; it is removed.
pub fn write(table: &'static Table, dir: &Path, day: &Day) -> Result<NewFile, Error> {
    let mut writer = FileWriter::create(table, dir, &day.date, 1)?;
    writer.write(&day.rows)?;
    writer.finish()
}

/// A file that is being written under a temporary name; removed if it is
/// dropped before its end.
pub struct FileWriter {
    table: &'static Table,
    file: NewFile,
    hours: Hours,
    writer: Option<ArrowWriter<File>>,
}

impl FileWriter {
    /// Begins a file for rows of one day, `YYYY-MM-DD`, that were brought
    /// together that many times.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn create(
        table: &'static Table,
        dir: &Path,
        date: &str,
        generation: u8,
    ) -> Result<Self, Error> {
        let folder = dir.join(format!("date={date}"));
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let name = file_name(generation);
        let temporary = folder.join(format!(".{name}.tmp"));
        let file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
        let schema = schema::schema(schema::index(table));
        let mut begun = Self {
            table,
            file: NewFile {
                path: format!("date={date}/{name}"),
                date: date.to_owned(),
                size: 0,
                bounds: Bounds::default(),
                temporary,
            },
            hours: Hours::new(),
            writer: None,
        };
        let writer = ArrowWriter::try_new(file, schema, Some(properties(table, generation)));
        begun.writer = Some(writer.map_err(Error::table("write a file of", table.name))?);
        Ok(begun)
    }

    /// Appends rows, which come in the table's order.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let failed = Error::table("write a file of", self.table.name);
        if let Some(writer) = &mut self.writer {
            writer.write(rows).map_err(failed)?;
        }
        hours::count(rows, &mut self.hours);
        self.file.bounds.widen(Bounds::of(self.table, rows));
        Ok(())
    }

    /// Ends the file, which is not synced yet.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn finish(mut self) -> Result<NewFile, Error> {
        let closed = self.writer.take().map(|mut writer| {
            writer.append_key_value_metadata(hours::note(&self.hours));
            writer.close()
        });
        if let Some(Err(error)) = closed {
            let _ = fs::remove_file(&self.file.temporary);
            return Err(Error::table("write a file of", self.table.name)(error));
        }
        let path = self.file.temporary.clone();
        let meta = fs::metadata(&path).map_err(Error::io("look at", &path))?;
        let bounds = std::mem::take(&mut self.file.bounds);
        Ok(NewFile {
            path: std::mem::take(&mut self.file.path),
            date: std::mem::take(&mut self.file.date),
            size: meta.len(),
            bounds,
            temporary: path,
        })
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = fs::remove_file(&self.file.temporary);
        }
    }
}

/// Name of a new file. The first generation, straight from memory, has none in
/// its name.
fn file_name(generation: u8) -> String {
    let id = ulid::Ulid::new();
    match generation {
        0 | 1 => format!("part-{id}.parquet"),
        n => format!("part-{id}-g{n}.parquet"),
    }
}

/// How often a file's rows were brought together.
pub fn generation(path: &str) -> u8 {
    let stem = path.strip_suffix(".parquet").unwrap_or(path);
    let tail = stem.rsplit_once("-g").map(|(_, n)| n.parse().ok());
    tail.flatten().unwrap_or(1)
}

/// Makes a file durable under its real name.
///
/// # Errors
/// It can't be synced or renamed: it must not be committed.
pub fn publish(dir: &Path, file: &NewFile) -> Result<(), Error> {
    let path = dir.join(&file.path);
    File::open(&file.temporary)
        .and_then(|f| f.sync_all())
        .map_err(Error::io("sync", &file.temporary))?;
    fs::rename(&file.temporary, &path).map_err(Error::io("rename", &path))?;
    for folder in [path.parent(), Some(dir)].into_iter().flatten() {
        sync_dir(folder)?;
    }
    Ok(())
}

/// Removes a file that will not be committed.
pub fn discard(dir: &Path, file: &NewFile) {
    let _ = fs::remove_file(&file.temporary);
    let _ = fs::remove_file(dir.join(&file.path));
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// As the file system says.
pub fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|f| f.sync_all())
        .map_err(Error::io("sync", dir))
}

fn properties(table: &Table, generation: u8) -> WriterProperties {
    // A first file is merged within the hour: only what stays is worth the
    // time of the higher level.
    let level = if generation > 1 { 3 } else { 1 };
    let level = ZstdLevel::try_new(level).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_sorting_columns(Some(sorting(table)));
    for column in table.columns {
        let path = ColumnPath::from(column.name);
        properties = match column.kind {
            // Time stamps and counters grow by small steps: deltas take a
            // fraction of what a dictionary takes.
            Kind::Time | Kind::Int => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Kind::Float | Kind::Hist => properties.set_column_dictionary_enabled(path, false),
            Kind::Text => properties.set_column_dictionary_enabled(path, true),
        };
    }
    properties.build()
}

fn sorting(table: &Table) -> Vec<SortingColumn> {
    let index = |name: &&str| table.position(name).and_then(|i| i32::try_from(i).ok());
    let column = |column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: true,
    };
    table.sort.iter().filter_map(index).map(column).collect()
}

/// `YYYY-MM-DD` of a day since 1970.
pub fn date(day: i64) -> String {
    let days = i32::try_from(day).unwrap_or(0);
    let date =
        time::Date::from_julian_day(2_440_588_i32.saturating_add(days)).unwrap_or(time::Date::MIN);
    format!(
        "{:04}-{:02}-{:02}",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

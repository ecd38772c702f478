//! From the bytes of a wire batch to what is appended: those bytes and its
//! rows.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use headroom_core::hist::Hist;
use headroom_core::metric::{Kind, TABLES};
use headroom_proto::columns;

use crate::schema;
use crate::wal::Entry;

/// Rows that are older when they come are counted: agents spool for a day.
pub const LATE: Duration = Duration::from_secs(24 * 3600);
/// Rows of one batch. 10 s of 5000 vCPUs are 6000; a claim of millions of
/// unavailable values would take 24 bytes each out of one bit.
const MAX_ROWS: u64 = 100_000;
/// Days that the rows of one batch may span: each becomes a file.
const MAX_DAYS: usize = 32;
/// Times accepted, µs: 1970 to 2200.
const TIMES: std::ops::Range<i64> = 0..7_258_118_400_000_000;
const DAY_US: i64 = 86_400_000_000;
/// Longest sender id, bytes.
const MAX_ID: usize = 256;

/// A batch ready to be appended.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What goes into the log.
    pub entry: Entry,
    /// Host name that the sender gives itself.
    pub host: String,
    /// Its rows by table.
    pub chunks: Vec<(usize, RecordBatch)>,
    /// Number of rows.
    pub rows: u64,
    /// Rows of tables that this build does not know, left out of `chunks`.
    pub unknown_rows: u64,
    /// Rows older than [`LATE`].
    pub late_rows: u64,
}

/// Checks a batch from the wire.
///
/// # Errors
/// Why it can never be taken.
pub fn wire(payload: Bytes) -> Result<Prepared, String> {
    let name = columns::name(&payload).map_err(|e| e.to_string())?;
    if name.agent_id.len() > MAX_ID {
        return Err(format!("agent_id has more than {MAX_ID} bytes"));
    }
    let rows = name.rows;
    if rows > MAX_ROWS {
        return Err(format!(
            "batch has {rows} rows, more than the {MAX_ROWS} allowed; send smaller ones"
        ));
    }
    let prepared = batch(payload)?;
    check_times(&prepared.chunks)?;
    check_hists(&prepared.chunks)?;
    Ok(Prepared {
        late_rows: late(&prepared.chunks),
        ..prepared
    })
}

/// Converts a batch that was checked before, as from the log.
///
/// # Errors
/// It does not fit the catalogue.
pub fn batch(payload: Bytes) -> Result<Prepared, String> {
    let (name, tables, unknown_rows) = columns::rows(&payload).map_err(|e| e.to_string())?;
    let rows = tables.iter().map(|t| t.rows as u64).sum();
    let convert = |rows: columns::Rows| Ok((schema::index(rows.table), schema::rows(rows)?));
    let chunks: Result<Vec<_>, crate::Error> = tables.into_iter().map(convert).collect();
    let chunks = chunks.map_err(|e| crate::error::chain(&e))?;
    let entry = Entry {
        agent_id: name.agent_id,
        epoch: name.epoch,
        seq: name.seq,
        payload,
    };
    Ok(Prepared {
        entry,
        host: name.host,
        chunks,
        rows,
        unknown_rows,
        late_rows: 0,
    })
}

fn times(rows: &RecordBatch) -> &[i64] {
    rows.column(0)
        .as_primitive::<TimestampMicrosecondType>()
        .values()
}

fn check_times(chunks: &[(usize, RecordBatch)]) -> Result<(), String> {
    let mut days = BTreeSet::new();
    for (table, rows) in chunks {
        let name = TABLES[*table].name;
        let mut last = None;
        for t in times(rows) {
            if !TIMES.contains(t) {
                return Err(format!(
                    "a row of {name} has time {t} µs, outside 1970 to 2200"
                ));
            }
            // Nearly always the same window as the row before.
            if last != Some(*t) {
                last = Some(*t);
                days.insert(t / DAY_US);
            }
        }
        // Within the row itself, times other than the first may be anything.
    }
    if days.len() > MAX_DAYS {
        return Err(format!(
            "rows span {} days, more than the {MAX_DAYS} allowed in one batch",
            days.len()
        ));
    }
    Ok(())
}

fn check_hists(chunks: &[(usize, RecordBatch)]) -> Result<(), String> {
    for (table, rows) in chunks {
        let columns = TABLES[*table].columns.iter().zip(rows.columns());
        for (column, values) in columns.filter(|(c, _)| c.kind == Kind::Hist) {
            for bytes in values.as_binary::<i32>().iter().flatten() {
                Hist::check(bytes)
                    .map_err(|e| format!("column {}.{}: {e}", TABLES[*table].name, column.name))?;
            }
        }
    }
    Ok(())
}

fn late(chunks: &[(usize, RecordBatch)]) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let before = i64::try_from(now.saturating_sub(LATE).as_micros()).unwrap_or(i64::MAX);
    chunks
        .iter()
        .flat_map(|(_, rows)| times(rows))
        .filter(|t| **t < before)
        .count() as u64
}

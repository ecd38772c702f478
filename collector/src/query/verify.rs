//! Telling whole Parquet files from torn ones.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use datafusion::common::{DataFusionError, Result};
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Rows;

/// Whether the file has the size it was committed with and ends like Parquet:
/// two system calls and 4 bytes, done for each file a query scans.
pub fn looks_whole(path: &Path, size: u64) -> bool {
    let check = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        if size < 12 || file.metadata()?.len() != size {
            return Ok(false);
        }
        let mut end = [0; 4];
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut end)?;
        Ok(&end == b"PAR1")
    };
    check().unwrap_or(false)
}

/// What DataFusion must know of a file.
///
/// # Errors
/// The path is no UTF-8.
pub fn meta(path: &Path, size: u64) -> Result<ObjectMeta> {
    let location = object_store::path::Path::from_absolute_path(path)
        .map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(ObjectMeta {
        location,
        last_modified: Default::default(),
        size,
        e_tag: None,
        version: None,
    })
}

/// Reads every live file from end to end and sets aside those that fail;
/// gives their number. Slow: only after a query failed on a file.
pub async fn set_aside_unreadable(rows: &dyn Rows) -> u64 {
    let snapshot = rows.snapshot();
    let mut bad = 0;
    for (table, state) in snapshot.tables.iter().enumerate() {
        for file in state.files.iter() {
            let path = rows.table_dir(table).join(&file.path);
            let readable = tokio::task::spawn_blocking(move || readable(&path))
                .await
                .unwrap_or(false);
            if !readable && rows.set_aside(table, &file.path).await {
                bad += 1;
            }
        }
    }
    bad
}

/// Whether all of a file can be read.
pub fn readable(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let Ok(reader) = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()) else {
        return false;
    };
    reader.into_iter().all(|batch| batch.is_ok())
}

//! Reading a table whole, without the query engine.

use std::fs::File;

use arrow::array::RecordBatch;
use headroom_core::rollup::stored;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Store;
use crate::Error;

impl Store {
    /// Every row of a table as of one snapshot, in memory and in its files.
    ///
    /// # Errors
    /// A live file can't be read.
    pub fn rows(&self, table: usize) -> Result<Vec<RecordBatch>, Error> {
        let snapshot = self.snapshot();
        let here = &snapshot.tables[table];
        let mut rows: Vec<_> = here.in_memory().map(|b| b.rows.clone()).collect();
        let name = stored()[table].name;
        for file in here.files.iter() {
            let path = self.table_dir(table).join(&file.path);
            let opened = File::open(&path).map_err(Error::io("open", &path))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(opened)
                .and_then(|builder| builder.build())
                .map_err(Error::table("read a file of", name))?;
            for batch in reader {
                rows.push(batch.map_err(Error::table("read a file of", name))?);
            }
        }
        Ok(rows)
    }
}

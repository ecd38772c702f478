//! The collector's rows, cell by cell.

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use headroom_core::series::Cells;

/// Rows in the store's schema.
pub struct Table<'a>(pub &'a RecordBatch);

impl Table<'_> {
    /// Time of a row, µs since 1970 UTC: the first column of every table.
    pub fn time(&self, row: usize) -> i64 {
        let times = self.0.column(0);
        times.as_primitive::<TimestampMicrosecondType>().value(row)
    }

    fn column(&self, name: &str, row: usize) -> Option<&ArrayRef> {
        self.0.column_by_name(name).filter(|c| c.is_valid(row))
    }
}

impl Cells for Table<'_> {
    fn rows(&self) -> usize {
        self.0.num_rows()
    }

    fn int(&self, column: &str, row: usize) -> Option<i64> {
        let values = self.column(column, row)?.as_primitive_opt::<Int64Type>()?;
        Some(values.value(row))
    }

    fn float(&self, column: &str, row: usize) -> Option<f64> {
        let values = self.column(column, row)?;
        match values.data_type() {
            DataType::Float64 => Some(values.as_primitive::<Float64Type>().value(row)),
            _ => self.int(column, row).map(|v| v as f64),
        }
    }

    fn text(&self, column: &str, row: usize) -> Option<&str> {
        let values = self.column(column, row)?.as_string_opt::<i32>()?;
        Some(values.value(row))
    }

    fn bytes(&self, column: &str, row: usize) -> Option<&[u8]> {
        let values = self.column(column, row)?.as_binary_opt::<i32>()?;
        Some(values.value(row))
    }
}

//! What a query can fail with, in one line for the one who asked.

use std::time::Duration;

use datafusion::error::DataFusionError;

/// A query that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum QueryError {
    /// The text is no query over these tables.
    #[error("{0}")]
    Sql(String),
    /// The text is too long.
    #[error("the query has {bytes} bytes, more than the {limit} allowed; shorten it")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// It ran too long.
    #[error("the query did not end within {} s (collector.query_timeout); ask for a shorter time span", .0.as_secs_f64())]
    Timeout(Duration),
    /// It needed too much memory.
    #[error(
        "the query needs more memory than collector.query_memory allows; ask for fewer groups or rows: {0}"
    )]
    Memory(String),
    /// Too many queries at once.
    #[error("too many queries at once; try again")]
    Busy,
    /// Something in the store or the engine.
    #[error("the query failed: {0}")]
    Failed(String),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let text = one_line(&error.strip_backtrace());
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::Memory(text),
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Execution(_)
            | DataFusionError::Diagnostic(..) => Self::Sql(text),
            DataFusionError::ArrowError(e, _) if !is_file_error(e) => Self::Sql(text),
            _ => Self::Failed(text),
        }
    }
}

/// Whether a file that was read may be the cause.
pub fn may_be_a_bad_file(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ParquetError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_) => true,
        DataFusionError::ArrowError(e, _) => is_file_error(e),
        DataFusionError::External(_) => true,
        _ => false,
    }
}

fn is_file_error(error: &arrow::error::ArrowError) -> bool {
    use arrow::error::ArrowError as E;
    matches!(
        error,
        E::ParquetError(_) | E::IoError(..) | E::ExternalError(_)
    )
}

fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(end) = line.char_indices().nth(500).map(|(i, _)| i) {
        line.truncate(end);
        line.push('…');
    }
    line
}

//! Bringing the files of a data directory together at once.

use std::path::Path;

use crate::Error;
use crate::lock::DataDirLock;
use crate::merger;
use crate::store::Store;

/// Far enough ahead for every hour and every day to be over: 10 years, µs.
const LATER_US: i64 = 10 * 365 * 86_400_000_000;

/// What a data directory holds in Parquet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Live files before.
    pub files_before: u64,
    /// Their size, bytes.
    pub bytes_before: u64,
    /// Live files now.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
}

/// Merges all that will ever be merged, without waiting for its time. No
/// collector may be at work there.
///
/// # Errors
/// The directory is in use or can't be read.
pub async fn compact(data_dir: &Path) -> Result<Compacted, Error> {
    let _lock = DataDirLock::take(data_dir)?;
    let store = Store::open(data_dir).await?;
    let (files_before, bytes_before) = size(&store);
    let now = merger::now_us().saturating_add(LATER_US);
    merger::merge_all(&store, now, &|| false).await;
    let (files, bytes) = size(&store);
    Ok(Compacted {
        files_before,
        bytes_before,
        files,
        bytes,
    })
}

fn size(store: &Store) -> (u64, u64) {
    let snapshot = store.snapshot();
    let files = snapshot.tables.iter().flat_map(|t| t.files.iter());
    files.fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.size))
}

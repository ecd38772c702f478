//! Rows of several files of one table in the table's order, as a stream.

use std::path::Path;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::arrow::compute::SortOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr, expressions::col};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use headroom_core::rollup::stored;

use super::{session, verify};
use crate::schema;
use crate::store::DataFile;

/// Reads files that are each in the table's order and gives all their rows in
/// that order, holding a batch of each in memory, `memory` bytes at most.
/// A column that a file does not have is NULL.
///
/// # Errors
/// A file can't be read, or the memory does not suffice; rows that a damaged
/// file holds may only fail in the stream.
pub fn sorted(
    table: usize,
    dir: &Path,
    files: &[Arc<DataFile>],
    memory: usize,
) -> Result<SendableRecordBatchStream> {
    let schema = schema::schema(table);
    let by = stored()[table].sort.iter().map(|name| {
        let options = SortOptions::default();
        Ok(PhysicalSortExpr::new(col(name, &schema)?, options))
    });
    let by: Vec<PhysicalSortExpr> = by.collect::<Result<_>>()?;
    let groups = files.iter().map(|file| {
        let meta = verify::meta(&dir.join(&file.path), file.size)?;
        Ok(FileGroup::new(vec![PartitionedFile::new_from_meta(meta)]))
    });
    let groups: Vec<FileGroup> = groups.collect::<Result<_>>()?;
    let source = Arc::new(ParquetSource::new(schema));
    let ordering = LexOrdering::new(by);
    let scan = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
        .with_file_groups(groups)
        .with_output_ordering(ordering.iter().cloned().collect())
        .build();
    let scan = DataSourceExec::from_data_source(scan);
    let plan: Arc<dyn ExecutionPlan> = match ordering {
        Some(ordering) => Arc::new(SortPreservingMergeExec::new(ordering, scan)),
        None => scan,
    };
    let env = RuntimeEnvBuilder::new()
        .with_memory_limit(memory, 1.0)
        .build_arc()?;
    let context = SessionContext::new_with_config_rt(session::config()?, env);
    execute_stream(plan, context.task_ctx())
}

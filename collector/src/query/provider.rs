//! One table of the catalogue as DataFusion sees it: memory and files at once.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{
    ColumnStatistics, DFSchema, Result, ScalarValue, Statistics, internal_err,
};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use headroom_core::rollup::stored;

use super::{Rows, verify};
use crate::schema;
use crate::store::{Bounds, DataFile, Snapshot};

/// A table at one moment.
pub struct HotAndStored {
    table: usize,
    snapshot: Arc<Snapshot>,
    rows: Arc<dyn Rows>,
}

impl HotAndStored {
    /// The table at that position of the catalogue, in that snapshot.
    pub fn new(table: usize, snapshot: Arc<Snapshot>, rows: Arc<dyn Rows>) -> Self {
        Self {
            table,
            snapshot,
            rows,
        }
    }

    /// Scan of the rows in memory.
    fn memory(
        &self,
        partitions: usize,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut parts = vec![Vec::new(); partitions.max(1)];
        for (i, batch) in self.snapshot.tables[self.table].in_memory().enumerate() {
            parts[i % partitions.max(1)].push(batch.rows.clone());
        }
        parts.retain(|p| !p.is_empty());
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        Ok(MemorySourceConfig::try_new_exec(
            &parts,
            self.schema(),
            projection.cloned(),
        )?)
    }

    /// Scan of the files that may hold rows of the predicate, if any do.
    async fn stored(
        &self,
        partitions: usize,
        projection: Option<&Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let dir = self.rows.table_dir(self.table);
        let mut files = Vec::new();
        for file in self.select(predicate.as_ref()) {
            let path = dir.join(&file.path);
            if verify::looks_whole(&path, file.size) {
                files.push(PartitionedFile::new_from_meta(verify::meta(
                    &path, file.size,
                )?));
            } else {
                self.rows.set_aside(self.table, &file.path).await;
            }
        }
        if files.is_empty() {
            return Ok(None);
        }
        let mut source = ParquetSource::new(self.schema());
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let groups = FileGroup::new(files).split_files(partitions.max(1));
        let config =
            FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
                .with_file_groups(groups)
                .with_projection_indices(projection.cloned())?
                .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    fn select(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<Arc<DataFile>> {
        let files = Vec::clone(&self.snapshot.tables[self.table].files);
        let Some(predicate) = predicate else {
            return files;
        };
        // DataFusion warns of statistics without any file.
        if files.is_empty() {
            return files;
        }
        let statistics = files
            .iter()
            .map(|f| Arc::new(statistics(&f.bounds, &self.schema())))
            .collect();
        let statistics = PrunableStatistics::new(statistics, self.schema());
        // A predicate that can't be used for this skips nothing.
        let keep = PruningPredicateBuilder::new()
            .with_file_schema(self.schema())
            .try_build(Arc::clone(predicate))
            .and_then(|p| p.prune(&statistics));
        match keep {
            Ok(keep) => files
                .into_iter()
                .zip(keep)
                .filter_map(|(f, keep)| keep.then_some(f))
                .collect(),
            Err(_) => files,
        }
    }
}

impl fmt::Debug for HotAndStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotAndStored")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for HotAndStored {
    fn schema(&self) -> SchemaRef {
        schema::schema(self.table)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Used to skip files, row groups and pages; a filter stays above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // An empty table would be a wrong answer.
        if !self.rows.holds(self.table) {
            let name = stored()[self.table].name;
            return internal_err!("rows of {name} were not asked for by the gate");
        }
        let partitions = state.config().target_partitions();
        let df_schema = DFSchema::try_from(self.schema())?;
        let predicate =
            conjunction(filters.iter().cloned()).map(|e| state.create_physical_expr(e, &df_schema));
        let predicate = predicate.transpose()?;
        let memory = self.memory(partitions, projection)?;
        match self.stored(partitions, projection, predicate).await? {
            Some(stored) => UnionExec::try_new(vec![memory, stored]),
            None => Ok(memory),
        }
    }
}

/// Bounds in the form that file skipping takes. They are only ever used for
/// that, where a bound that is too wide is as good as an exact one.
fn statistics(bounds: &Bounds, schema: &Schema) -> Statistics {
    let column = |(bounds, field): (&Option<_>, &Arc<Field>)| {
        // An unknown bound is a NULL of the column's own type: an untyped one
        // beside known ones makes DataFusion warn and skip nothing.
        let (lo, hi) = match bounds {
            Some((lo, hi)) => (ScalarValue::clone(lo), ScalarValue::clone(hi)),
            None => match ScalarValue::try_from(field.data_type()) {
                Ok(null) => (null.clone(), null),
                Err(_) => return ColumnStatistics::new_unknown(),
            },
        };
        ColumnStatistics {
            min_value: Precision::Exact(lo),
            max_value: Precision::Exact(hi),
            ..ColumnStatistics::new_unknown()
        }
    };
    Statistics {
        num_rows: Precision::Absent,
        total_byte_size: Precision::Absent,
        column_statistics: bounds
            .columns
            .iter()
            .zip(schema.fields())
            .map(column)
            .collect(),
    }
}

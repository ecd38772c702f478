//! What a query can see: tables, views, functions, and settings.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::functions::datetime::date_bin;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use headroom_core::metric::Table;
use headroom_core::rollup::stored;
use headroom_core::rows::{VM_DISKS, VM_MEMORY, VM_NUMA, VM_QUEUES};

use super::Rows;
use super::gate::DENIED;
use super::hist::{hist_count, hist_merge, hist_quantile};
use super::pg_catalog;
use super::provider::HotAndStored;
use super::views::{self, VIEWS};
use crate::schema;
use crate::store::Snapshot;

/// Tables under the names that people look for first.
const ALSO: &[(&str, &Table)] = &[
    ("block_io", &VM_DISKS),
    ("virtio", &VM_QUEUES),
    ("numa", &VM_NUMA),
    ("memory", &VM_MEMORY),
];

/// Tables of `information_schema` that list views.
const LISTS: &[&str] = &["tables", "views", "columns", pg_catalog::COLUMNS];

/// Tables of the catalogue behind names in a statement, each once.
pub fn behind(names: &[String]) -> Vec<usize> {
    if names.iter().any(|name| name == views::STORE_USAGE) {
        return (0..stored().len()).collect();
    }
    let named = |name: &str| names.iter().any(|n| n == name);
    let views = VIEWS.iter().filter(|view| named(view.name));
    let read: Vec<&str> = views.flat_map(|view| view.reads).copied().collect();
    let also = ALSO.iter().filter(|(name, _)| named(name));
    let also: Vec<&str> = also.map(|(_, table)| table.name).collect();
    let wanted = |name| named(name) || read.contains(&name) || also.contains(&name);
    let all = stored().iter().enumerate();
    let all = all.filter(|(_, table)| wanted(table.name));
    all.map(|(index, _)| index).collect()
}

/// Settings of every query.
pub fn config() -> Result<SessionConfig> {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema("headroom", "public")
        .with_create_default_catalog_and_schema(true);
    let options = config.options_mut();
    // Wrong results in DataFusion 55: 28 of 40 runs of an aggregate at two
    // partitions. This key also clears those of top-k, joins and aggregates.
    options.set(
        "datafusion.optimizer.enable_dynamic_filter_pushdown",
        "false",
    )?;
    options.set("datafusion.execution.parquet.pushdown_filters", "false")?;
    options.set("datafusion.execution.time_zone", "UTC")?;
    Ok(config)
}

/// A context that sees the rows of one moment, the same in all tables, for a
/// statement that names these.
///
/// # Errors
/// A bug in what is registered here.
pub async fn context(
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
    rows: &Arc<dyn Rows>,
    (snapshot, names): (Arc<Snapshot>, &[String]),
) -> Result<SessionContext> {
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        // `'vms'::regclass` and the like; it knows names that no other planner does.
        .with_type_planner(Arc::new(PgOidTypePlanner))
        .build();
    let context = SessionContext::new_with_state(state);
    for name in DENIED {
        context.deregister_udf(name);
        context.deregister_udtf(name);
    }
    context.register_udf(hist_quantile());
    context.register_udf(hist_count());
    context.register_udaf(hist_merge());
    // As Grafana's macros and TimescaleDB call it.
    context.register_udf(date_bin().as_ref().clone().with_aliases(["time_bucket"]));
    pg_catalog::register(&context)?;
    let all = stored().iter().map(|table| (table.name, *table));
    for (name, table) in all.chain(ALSO.iter().copied()) {
        let i = schema::index(table);
        context.register_table(
            name,
            Arc::new(HotAndStored::new(
                i,
                Arc::clone(&snapshot),
                Arc::clone(rows),
            )),
        )?;
    }
    context.register_table("column_comments", Arc::new(comments()?))?;
    context.register_table(
        views::STORE_USAGE,
        Arc::new(views::store_usage(&snapshot, &rows.keep())?),
    )?;
    // Planning a view takes longer than most queries, so those that nobody
    // asks for are left out; `information_schema`, `pg_catalog` and SHOW see all of them.
    let list = |name: &String| name.starts_with("pg_") || LISTS.contains(&name.as_str());
    let lists = names.is_empty() || names.iter().any(list);
    for view in VIEWS {
        if lists || names.iter().any(|name| name == view.name) {
            context.sql(view.sql).await?;
        }
    }
    Ok(context)
}

/// Table `column_comments`: unit and description of every column.
fn comments() -> Result<MemTable> {
    let all = || {
        let all = stored().iter().map(|table| (table.name, *table));
        all.chain(ALSO.iter().copied())
            .flat_map(|(name, t)| t.columns.iter().map(move |c| (name, c)))
    };
    let field = |name| Field::new(name, DataType::Utf8, false);
    let schema = Arc::new(Schema::new(vec![
        field("table_name"),
        field("column_name"),
        field("unit"),
        field("comment"),
    ]));
    let columns: [Vec<&str>; 4] = [
        all().map(|(t, _)| t).collect(),
        all().map(|(_, c)| c.name).collect(),
        all().map(|(_, c)| c.unit.symbol()).collect(),
        all().map(|(_, c)| c.description).collect(),
    ];
    let arrays = columns
        .into_iter()
        .map(|c| Arc::new(StringArray::from(c)) as _)
        .collect();
    let rows = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    MemTable::try_new(schema, vec![vec![rows]])
}

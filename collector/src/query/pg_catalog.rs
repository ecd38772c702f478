//! `pg_catalog` over our tables, for clients that look there.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog as pg;
use futures::TryStreamExt as _;
use pg::catalog_info::CatalogInfo;
use pg::context::EmptyContextProvider;
use pg::{PgCatalogSchemaProvider, PgCatalogStaticTables, PgCatalogTable};
use tokio::sync::OnceCell;

/// The one database, and the name of its owner.
const CATALOG: &str = "headroom";
const PUBLIC: &str = "public";
/// `information_schema.columns` with PostgreSQL's names of types, under the
/// name that [`super::postgres`] gives it.
pub const COLUMNS: &str = "information_schema_columns";

/// Tables that are the same everywhere; 60 of them, decoded at their first use.
static FIXED: LazyLock<std::result::Result<Arc<PgCatalogStaticTables>, String>> =
    LazyLock::new(|| {
        PgCatalogStaticTables::try_new()
            .map(Arc::new)
            .map_err(|e| e.to_string())
    });

static FUNCTIONS: LazyLock<Vec<ScalarUDF>> = LazyLock::new(functions);

/// Registers the schema and its functions. Nothing is computed until a
/// statement names one of its tables.
///
/// # Errors
/// A bug in what is registered here.
pub fn register(context: &SessionContext) -> Result<()> {
    let catalog = context
        .catalog(CATALOG)
        .ok_or_else(|| DataFusionError::Internal("no default catalog".into()))?;
    let public = catalog
        .schema(PUBLIC)
        .ok_or_else(|| DataFusionError::Internal("no default schema".into()))?;
    catalog.register_schema(
        "pg_catalog",
        Arc::new(PgCatalog {
            listed: Listed(public),
            inner: OnceCell::new(),
        }),
    )?;
    for function in FUNCTIONS.iter() {
        context.register_udf(function.clone());
    }
    Ok(())
}

type Inner = PgCatalogSchemaProvider<Listed, EmptyContextProvider>;

/// The schema. Its tables are found by name and listed nowhere: they would
/// stand in every list of tables.
#[derive(Debug)]
struct PgCatalog {
    listed: Listed,
    inner: OnceCell<Inner>,
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == COLUMNS {
            return Ok(Some(Arc::new(self.listed.columns().await?)));
        }
        let inner = self.inner.get_or_try_init(|| self.open()).await?;
        inner.table(name).await
    }

    fn table_exist(&self, name: &str) -> bool {
        name == COLUMNS || pg::PG_CATALOG_TABLES.contains(&name)
    }
}

impl PgCatalog {
    /// Opens it and gives every object its number in a fixed order: a client
    /// asks for a table's number in one statement and uses it in the next,
    /// which has a context of its own.
    async fn open(&self) -> Result<Inner> {
        let fixed = FIXED.clone().map_err(DataFusionError::Internal)?;
        let inner = Inner::try_new(self.listed.clone(), fixed, EmptyContextProvider)?;
        if let Some(PgCatalogTable::Dynamic(classes)) = inner.build_table_by_name("pg_class")? {
            let stream = classes.execute(Arc::new(TaskContext::default()));
            let _: Vec<RecordBatch> = stream.try_collect().await?;
        }
        Ok(inner)
    }
}

/// Our tables in the order of their names.
#[derive(Clone, Debug)]
struct Listed(Arc<dyn SchemaProvider>);

#[async_trait]
impl CatalogInfo for Listed {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        Ok(vec![CATALOG.into()])
    }

    async fn schema_names(&self, _: &str) -> Result<Option<Vec<String>>> {
        Ok(Some(vec![PUBLIC.into(), "pg_catalog".into()]))
    }

    async fn table_names(&self, _: &str, schema: &str) -> Result<Option<Vec<String>>> {
        Ok(Some(if schema == PUBLIC {
            self.names()
        } else {
            Vec::new()
        }))
    }

    async fn table_schema(&self, _: &str, _: &str, table: &str) -> Result<Option<SchemaRef>> {
        Ok(self.0.table(table).await?.map(|t| t.schema()))
    }

    async fn table_type(&self, _: &str, _: &str, table: &str) -> Result<Option<TableType>> {
        self.0.table_type(table).await
    }
}

impl Listed {
    fn names(&self) -> Vec<String> {
        let mut names = self.0.table_names();
        names.sort();
        names
    }

    /// `information_schema.columns` as PostgreSQL words it.
    async fn columns(&self) -> Result<MemTable> {
        let (mut texts, mut places) = (vec![Vec::new(); 8], Vec::new());
        for table in self.names() {
            let Some(provider) = self.0.table(&table).await? else {
                continue;
            };
            for (i, field) in provider.schema().fields().iter().enumerate() {
                let (data_type, udt) = type_names(field.data_type());
                let nullable = if field.is_nullable() { "YES" } else { "NO" };
                let row = [
                    CATALOG,
                    PUBLIC,
                    &table,
                    field.name(),
                    nullable,
                    data_type,
                    "pg_catalog",
                    udt,
                ];
                for (column, value) in texts.iter_mut().zip(row) {
                    column.push(value.to_owned());
                }
                places.push(i64::try_from(i + 1).unwrap_or(i64::MAX));
            }
        }
        columns_table(texts, places)
    }
}

fn columns_table(texts: Vec<Vec<String>>, places: Vec<i64>) -> Result<MemTable> {
    const NAMES: [&str; 8] = [
        "table_catalog",
        "table_schema",
        "table_name",
        "column_name",
        "is_nullable",
        "data_type",
        "udt_schema",
        "udt_name",
    ];
    let mut fields: Vec<Field> = NAMES
        .iter()
        .map(|n| Field::new(*n, DataType::Utf8, false))
        .collect();
    let mut arrays: Vec<ArrayRef> = texts
        .into_iter()
        .map(|c| Arc::new(StringArray::from(c)) as _)
        .collect();
    fields.push(Field::new("ordinal_position", DataType::Int64, false));
    arrays.push(Arc::new(Int64Array::from(places)));
    let none: ArrayRef = arrow::array::new_null_array(&DataType::Utf8, arrays[0].len());
    fields.push(Field::new("column_default", DataType::Utf8, true));
    arrays.push(none);
    let schema = Arc::new(Schema::new_with_metadata(fields, HashMap::new()));
    let rows = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    MemTable::try_new(schema, vec![vec![rows]])
}

/// `data_type` and `udt_name` of a column.
fn type_names(data_type: &DataType) -> (&'static str, &'static str) {
    match data_type {
        DataType::Int64 => ("bigint", "int8"),
        DataType::Float64 => ("double precision", "float8"),
        DataType::Timestamp(_, Some(_)) => ("timestamp with time zone", "timestamptz"),
        DataType::Timestamp(_, None) => ("timestamp without time zone", "timestamp"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ("bytea", "bytea"),
        DataType::Boolean => ("boolean", "bool"),
        _ => ("text", "text"),
    }
}

fn functions() -> Vec<ScalarUDF> {
    let mut all = vec![
        pg::create_current_database_udf(CATALOG),
        pg::create_current_schema_udf(),
        pg::create_current_schemas_udf(),
        pg::create_pg_table_is_visible(),
        pg::format_type::create_format_type_udf(),
        pg::pg_get_expr_udf::create_pg_get_expr_udf(),
        pg::create_pg_get_partkeydef_udf(),
        pg::create_pg_relation_is_publishable_udf(),
        pg::create_pg_get_statisticsobjdef_columns_udf(),
        pg::create_pg_encoding_to_char_udf(),
        pg::create_pg_relation_size_udf(),
        pg::create_pg_total_relation_size_udf(),
        pg::create_pg_stat_get_numscans(),
        pg::create_pg_get_constraintdef(),
        pg::create_pg_get_partition_ancestors_udf(),
        pg::quote_ident_udf::create_quote_ident_udf(),
        pg::quote_ident_udf::create_parse_ident_udf(),
        pg::array_bounds_udf::create_array_upper_udf(),
        pg::array_bounds_udf::create_array_lower_udf(),
        constant("pg_get_userbyid", &[DataType::Int32], Some(CATALOG)),
        constant("pg_size_pretty", &[DataType::Utf8], None),
        constant("pg_table_size", &[DataType::Int32], None),
        constant("obj_description", &[DataType::Int32, DataType::Utf8], None),
        constant(
            "shobj_description",
            &[DataType::Int32, DataType::Utf8],
            None,
        ),
        constant("col_description", &[DataType::Int32, DataType::Int64], None),
    ];
    for what in ["table", "schema", "database", "any_column"] {
        let name = format!("has_{what}_privilege");
        all.push(pg::has_privilege_udf::create_has_privilege_udf(&name));
    }
    all
}

/// A function that gives one text whatever it is asked.
fn constant(name: &str, arguments: &[DataType], answer: Option<&'static str>) -> ScalarUDF {
    let answer = answer.map(str::to_owned);
    create_udf(
        name,
        arguments.to_vec(),
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(move |_| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(answer.clone())))),
    )
}

//! The collector's PostgreSQL port, asked as Grafana asks it.

use std::path::Path;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::tests::harness::PATIENCE;

/// What Grafana makes of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Time,
    Number,
    Text,
    Other,
}

/// Columns, and rows as PostgreSQL's text.
pub struct Answer {
    pub columns: Vec<(String, Type)>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    /// A number of the first row.
    pub fn number(&self, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|(n, _)| n == column);
        let cell = self.rows.first()?[at.expect(column)].as_ref()?;
        Some(cell.parse().unwrap())
    }
}

pub struct Port {
    client: Client,
}

impl Port {
    pub async fn open(dir: &Path) -> Self {
        let address = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(text) = std::fs::read_to_string(dir.join("endpoint.pg")) {
                    return text;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        let address = address.await.expect("no PostgreSQL port");
        let (host, port) = address.trim().rsplit_once(':').unwrap();
        let password = std::fs::read_to_string(dir.join("pg.password")).unwrap();
        let (client, connection) = tokio_postgres::Config::new()
            .host(host)
            .port(port.parse().unwrap())
            .user("headroom")
            .password(password.trim())
            .dbname("headroom")
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { client }
    }

    /// Asks by the simple protocol, as Grafana does; the types come from the
    /// extended one, since tokio-postgres hides those of the simple.
    pub async fn ask(&self, sql: &str) -> Result<Answer, String> {
        let simple = self.client.simple_query(sql).await.map_err(explain)?;
        let statement = self.client.prepare(sql).await.map_err(explain)?;
        let columns = statement.columns().iter();
        let columns: Vec<_> = columns
            .map(|c| (c.name().into(), kind(c.type_().name())))
            .collect();
        let mut rows = Vec::new();
        for message in simple {
            if let SimpleQueryMessage::Row(row) = message {
                let cells = (0..row.len()).map(|i| row.get(i).map(str::to_string));
                rows.push(cells.collect());
            }
        }
        Ok(Answer { columns, rows })
    }

    /// Asks by the extended protocol; the number of rows.
    pub async fn count(&self, sql: &str) -> Result<usize, String> {
        let rows = self.client.query(sql, &[]).await.map_err(explain)?;
        Ok(rows.len())
    }
}

fn kind(name: &str) -> Type {
    match name {
        "timestamptz" | "timestamp" | "date" => Type::Time,
        "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" => Type::Number,
        "text" | "varchar" | "char" | "bpchar" | "name" => Type::Text,
        _ => Type::Other,
    }
}

fn explain(error: tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => format!("{} {}", e.code().code(), e.message()),
        None => error.to_string(),
    }
}

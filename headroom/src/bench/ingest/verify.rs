//! The store against what was acked, batch by batch, in SQL.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};

use super::drive::{Agent, Driven};

/// Where store and acks differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows acked and not there.
    pub lost: u64,
    /// Rows there more than once.
    pub duplicate: u64,
}

/// Rows by table, host and time.
type Counts = HashMap<(String, String, i64), u64>;

/// Compares the directory of a stopped collector with the acks.
///
/// # Errors
/// The directory can't be read.
pub async fn compare(
    data_dir: &Path,
    agents: &[Arc<Agent>],
    driven: &Driven,
) -> anyhow::Result<Found> {
    Ok(differ(agents, driven, &stored(data_dir, agents).await?))
}

fn differ(agents: &[Arc<Agent>], driven: &Driven, stored: &Counts) -> Found {
    let mut found = Found::default();
    for (number, agent) in agents.iter().enumerate() {
        let acked = driven.acked.get(&number).copied().unwrap_or(0);
        for (i, batch) in agent.iter().enumerate() {
            for (table, rows) in &batch.rows {
                let key = ((*table).to_owned(), batch.host.clone(), batch.ts);
                let there = stored.get(&key).copied().unwrap_or(0);
                // One that was not acked may be there all the same, once.
                found.duplicate += there.saturating_sub(*rows);
                if i < acked {
                    found.lost += rows.saturating_sub(there);
                }
            }
        }
    }
    found
}

async fn stored(data_dir: &Path, agents: &[Arc<Agent>]) -> anyhow::Result<Counts> {
    let engine = headroom_collector::offline(data_dir).await?;
    let mut counts = Counts::new();
    let first = agents.first().and_then(|a| a.first());
    for (table, _) in first.into_iter().flat_map(|b| &b.rows) {
        let sql = format!("SELECT host, ts, count(*) AS n FROM {table} GROUP BY host, ts");
        for rows in &engine.collect(&sql).await?.1 {
            add(&mut counts, table, rows)?;
        }
    }
    Ok(counts)
}

fn add(counts: &mut Counts, table: &str, rows: &RecordBatch) -> anyhow::Result<()> {
    let column = |name| rows.column_by_name(name).context("a column is missing");
    let hosts = arrow::compute::cast(column("host")?, &DataType::Utf8)?;
    let times = column("ts")?.as_primitive::<TimestampMicrosecondType>();
    let n = column("n")?.as_primitive::<Int64Type>();
    for (i, host) in hosts.as_string::<i32>().iter().enumerate() {
        let host = host.unwrap_or_default().to_owned();
        let key = (table.to_owned(), host, times.value(i));
        counts.insert(key, n.value(i).unsigned_abs());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use headroom_fleet::batch::{Shape, encode};
    use headroom_fleet::model::{Spec, hosts};
    use headroom_fleet::series::Series;

    use super::*;

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_counted() {
        let series = Series::sample();
        let spec = Spec {
            hosts: 1,
            vms: 3,
            threads: 8,
            window_us: 10_000_000,
            seed: 1,
        };
        let host = &hosts(&spec, &series)[0];
        let batch = |seq: u64, ts| encode(host, &series, (1, seq), ts, Shape::Twelve);
        let agent = vec![batch(1, 10), batch(2, 20), batch(3, 30)];
        let rows = agent[0].total();
        let key = |ts| ("vcpus".to_owned(), host.name.clone(), ts);
        let driven = Driven {
            acked: HashMap::from([(0, 2)]),
            ..Driven::default()
        };
        let agents = [Arc::new(agent)];
        let whole = Counts::from([(key(10), rows), (key(20), rows), (key(30), rows)]);
        assert_eq!(differ(&agents, &driven, &whole), Found::default());
        // The third was not acked: that it is not there is no loss.
        let wrong = Counts::from([(key(10), rows - 1), (key(20), 2 * rows)]);
        let found = differ(&agents, &driven, &wrong);
        assert_eq!((found.lost, found.duplicate), (1, rows));
    }
}

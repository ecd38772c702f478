use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use headroom_core::rollup::stored;

use super::{Limits, QueryEngine, QueryError, Rows, session};
use crate::ingest::convert;
use crate::store::{Snapshot, TableRows, hot};
use crate::tests::harness::{PATIENCE, batch, bytes, number};

struct Memory(ArcSwap<Snapshot>);

#[async_trait]
impl Rows for Memory {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    fn table_dir(&self, _: usize) -> std::path::PathBuf {
        "/nonexistent".into()
    }

    async fn set_aside(&self, _: usize, _: &str) -> bool {
        false
    }
}

fn engine(batches: u64) -> QueryEngine {
    let mut snapshot = Snapshot {
        tables: vec![TableRows::default(); stored().len()],
    };
    for seq in 1..=batches {
        for (table, rows) in convert::wire(bytes(&batch("a", 1, seq, 4))).unwrap().chunks {
            hot::push(&mut snapshot.tables[table].hot, rows);
        }
    }
    let limits = Limits {
        memory: 64 << 20,
        timeout: PATIENCE,
    };
    QueryEngine::new(Arc::new(Memory(ArcSwap::from_pointee(snapshot))), limits).unwrap()
}

async fn one(engine: &QueryEngine, sql: &str) -> i64 {
    number(
        &engine
            .collect(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
            .1,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_in_sql() {
    // Each row: 90 waits of 1 ms, 10 of 20 ms; 40 rows.
    let engine = engine(10);
    assert_eq!(
        one(&engine, "SELECT sum(hist_count(ready_hist)) FROM vcpus").await,
        4000
    );
    assert_eq!(
        one(
            &engine,
            "SELECT hist_count(hist_merge(ready_hist)) FROM vcpus"
        )
        .await,
        4000
    );
    let p50 = one(
        &engine,
        "SELECT hist_quantile(hist_merge(ready_hist), 0.5) FROM vcpus",
    )
    .await;
    let p99 = one(
        &engine,
        "SELECT hist_quantile(hist_merge(ready_hist), 0.99) FROM vcpus",
    )
    .await;
    assert!((875_000..=1_125_000).contains(&p50), "{p50}");
    assert!((17_500_000..=22_500_000).contains(&p99), "{p99}");
    let per_vcpu = "SELECT count(*) FROM (SELECT vcpu, hist_count(hist_merge(ready_hist)) n FROM vcpus GROUP BY vcpu) WHERE n = 1000";
    assert_eq!(one(&engine, per_vcpu).await, 4);
    let none = "SELECT count(*) FROM (SELECT hist_merge(ready_hist) h FROM vcpus WHERE vcpu > 99) WHERE h IS NULL";
    assert_eq!(one(&engine, none).await, 1);
    let null = "SELECT count(*) FROM vcpus WHERE hist_quantile(ready_hist, 1.5) IS NULL AND hist_quantile(NULL, 0.5) IS NULL";
    assert_eq!(one(&engine, null).await, 40);
}

#[test]
fn what_gave_wrong_results_is_off() {
    let config = session::config().unwrap();
    let optimizer = &config.options().optimizer;
    assert!(!optimizer.enable_dynamic_filter_pushdown);
    assert!(!optimizer.enable_topk_dynamic_filter_pushdown);
    assert!(!optimizer.enable_join_dynamic_filter_pushdown);
    assert!(!optimizer.enable_aggregate_dynamic_filter_pushdown);
    assert!(!config.options().execution.parquet.pushdown_filters);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_named() {
    let engine = engine(1);
    let long = format!("SELECT 1 -- {}", "x".repeat(70_000));
    assert!(matches!(
        engine.collect(&long).await,
        Err(QueryError::TooLong { .. })
    ));
    let error = engine
        .collect("SELECT redy_ns FROM vcpus")
        .await
        .unwrap_err();
    assert!(
        matches!(error, QueryError::Sql(_)) && error.to_string().contains("redy_ns"),
        "{error}"
    );
    let types = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'vcpus' AND column_name = 'ready_ns' AND data_type = 'Int64'";
    assert_eq!(one(&engine, types).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_people_look_for_is_there_with_its_units() {
    let engine = engine(1);
    for name in [
        "vms",
        "vcpus",
        "hosts",
        "block_io",
        "virtio",
        "numa",
        "memory",
        "blame",
        "forecasts",
        "recommendations",
        "events",
    ] {
        let rows = format!("SELECT count(*) FROM {name} WHERE true");
        one(&engine, &rows).await;
    }
    let same =
        |name: &str| format!("SELECT count(*) FROM column_comments WHERE table_name = '{name}'");
    let (by, also) = (
        one(&engine, &same("vm_disks")).await,
        one(&engine, &same("block_io")).await,
    );
    assert!(by > 5 && by == also, "{by} {also}");
}

//! What others may send: garbage, invalid batches, hostile SQL.

use std::time::{Duration, Instant};

use super::harness::*;
use crate::config::Raw;
use headroom_core::batch::Chunk;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_silence_on_the_port_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut held = Vec::new();
    let mut state = 7u64;
    for i in 0..300 {
        let mut bytes: Vec<u8> = Vec::new();
        if i % 2 == 0 {
            bytes.extend_from_slice(preface);
        }
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.push((state >> 56) as u8);
        }
        let mut socket = TcpStream::connect(&collector.address).await.unwrap();
        let _ = socket.write_all(&bytes).await;
        if i % 3 == 0 {
            held.push(socket);
        }
    }
    // Connections that never say anything.
    for _ in 0..100 {
        held.push(TcpStream::connect(&collector.address).await.unwrap());
    }
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=5, 2)).await;
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 10);
    drop(sender);
    // With all of them open it still ends.
    let began = Instant::now();
    collector.stop().await;
    assert!(began.elapsed() < PATIENCE);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_batches_are_refused_and_the_stream_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let mut sender = collector.sender().await;
    let good = |seq| batch("a", 1, seq, 2);
    sender.push_all(&[good(1)]).await;
    let with = |change: fn(&mut headroom_proto::v1::Batch)| {
        let mut bad = good(2);
        change(&mut bad);
        bad
    };
    let far = vcpu_row("a", i64::MAX, 0);
    let mut no_hist = vcpu_row("a", T0, 0);
    no_hist.ready_hist = Some(vec![0xff; 30]);
    let days: Vec<_> = (0..40)
        .map(|d| vcpu_row("a", T0 + d * 86_400_000_000, 0))
        .collect();
    let invalid = [
        (with(|b| b.agent_id.clear()), "agent_id"),
        (with(|b| b.agent_id = "x".repeat(1000)), "agent_id"),
        (with(|b| b.schema_version = 99), "schema version 99"),
        (with(|b| b.seq = 0), "epoch or seq"),
        (with(|b| b.chunks[0].rows = 3), "number of values"),
        (
            with(|b| b.chunks[0].rows = u32::MAX),
            "more than the 100000 allowed",
        ),
        (with(|b| b.chunks[0].columns.clear()), "is missing"),
        (
            wire("a", 1, 2, vec![Chunk::of(&[far])]),
            "outside 1970 to 2200",
        ),
        (wire("a", 1, 2, vec![Chunk::of(&[no_hist])]), "ready_hist"),
        (wire("a", 1, 2, vec![Chunk::of(&days)]), "span 40 days"),
    ];
    for (batch, problem) in &invalid {
        let ack = sender.push(batch).await;
        assert!(
            ack.refused.contains(problem),
            "{problem}: {:?}",
            ack.refused
        );
        assert_eq!(ack.retry_after_ms, 0);
    }
    // A gap is fine: the sender may have dropped the oldest.
    sender.push_all(&[good(2), good(7)]).await;
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 6);
    // A message beyond the limit ends this stream only.
    let mut huge = good(8);
    huge.host = "h".repeat(headroom_proto::MAX_MESSAGE_BYTES + 1);
    assert!(sender.try_push(&huge).await.is_none());
    collector.sender().await.push_all(&[good(8)]).await;
    collector.stop().await;
}

/// Texts that must be refused, each with an error of one line.
const REFUSED: &[&str] = &[
    "DROP TABLE vcpus",
    "DELETE FROM vcpus",
    "UPDATE vcpus SET run_ns = 0",
    "INSERT INTO vcpus SELECT * FROM vcpus",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "COPY (SELECT 1) TO '/tmp/headroom-out.csv'",
    "COPY vcpus TO '/tmp/headroom-out.parquet' STORED AS PARQUET",
    "SET datafusion.optimizer.enable_dynamic_filter_pushdown = true",
    "RESET datafusion.execution.time_zone",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/headroom-out.csv'",
    "EXPLAIN DROP TABLE vcpus",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE vcpus",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM generate_series(1, 1000000000000)",
    "SELECT * FROM range(1, 1000000000000)",
    "SELECT generate_series(1, 100000000)",
    "SELECT range(1, 100000000)",
    "SELECT repeat('x', 1500000000)",
    "SELECT lpad('x', 1500000000, 'y')",
    "SELECT rpad('x', 1500000000, 'y')",
    "SELECT array_repeat('x', 1500000000)",
    "SELECT array_resize([1], 1500000000)",
    "SELECT nothing FROM vcpus",
    "SELECT * FROM nowhere",
    "SELECT",
    "",
    ";",
    "\0",
    "SELECT 1/0",
    "SELECT CAST('x' AS BIGINT)",
    "SELECT hist_quantile('no histogram at all', 0.5)",
    "SELECT hist_merge(1)",
    "GRANT ALL ON vcpus TO public",
    "VACUUM",
    "SHOW TABLES; DROP TABLE vcpus",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "WITH RECURSIVE r AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM r) SELECT max(length(s)) FROM r",
];

/// [`REFUSED`] and some that are long.
fn refused_sql() -> Vec<String> {
    let mut texts: Vec<String> = REFUSED.iter().map(ToString::to_string).collect();
    texts.push(format!(
        "SELECT {}1{}",
        "(".repeat(20_000),
        ")".repeat(20_000)
    ));
    texts.push(format!("SELECT {}1", "-".repeat(60_000)));
    texts.push(format!("SELECT {}", "NOT ".repeat(10_000)));
    texts.push(format!("SELECT '{}'", "x".repeat(100_000)));
    let product = ["vcpus"; 12]
        .iter()
        .enumerate()
        .map(|(i, t)| format!("{t} AS t{i}"))
        .collect::<Vec<_>>()
        .join(", ");
    texts.push(format!("SELECT count(DISTINCT t0.ts) FROM {product}"));
    texts.push(format!("SELECT * FROM {product} ORDER BY t3.ready_ratio"));
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_sql_gets_an_error_of_one_line_and_the_collector_lives() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Raw {
        query_timeout: "3s".into(),
        query_memory: "64 MiB".into(),
        ..raw(dir.path())
    };
    let collector = Collector::start(raw).await;
    collector
        .sender()
        .await
        .push_all(&batches("a", 1..=10, 20))
        .await;
    let client = collector.client().await;
    for sql in refused_sql() {
        let shown: String = sql.chars().take(80).collect();
        let began = Instant::now();
        let error = client
            .sql(&sql)
            .await
            .err()
            .unwrap_or_else(|| panic!("answered: {shown}"))
            .to_string();
        assert!(
            !error.is_empty() && !error.contains('\n'),
            "{shown}: {error:?}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(4 + 10),
            "{shown} took {:?}",
            began.elapsed()
        );
        let honest = client.sql("SELECT count(*) FROM vcpus").await;
        let honest = honest.unwrap_or_else(|e| panic!("after {shown}: {e}"));
        assert_eq!(number(&honest.1), 200);
        println!(
            "{:?} {shown}: {}",
            began.elapsed(),
            &error[..error.len().min(90)]
        );
    }
    assert!(!std::path::Path::new("/tmp/headroom-out.csv").exists());
    // Long but honest.
    let terms: Vec<String> = (0..2000).map(|i| format!("vcpu = {i}")).collect();
    let sql = format!("SELECT count(*) FROM vcpus WHERE {}", terms.join(" OR "));
    match client.sql(&sql).await {
        Ok((_, rows)) => assert_eq!(number(&rows), 200),
        Err(error) => assert!(error.to_string().contains("did not end within"), "{error}"),
    }
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 200);
    collector.stop().await;
}

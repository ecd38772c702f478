use super::harness::*;
use headroom_core::batch::Chunk;
use headroom_core::rows::RecommendationRow;

#[tokio::test(flavor = "multi_thread")]
async fn acked_rows_are_queryable_at_once_and_stay_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=20, 4)).await;
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 80);
    let before = collector.text(ALL_VCPUS).await;
    let status = collector.client().await.status().await.unwrap();
    assert_eq!(
        (status.acked_rows, status.hot_rows, status.files),
        (100, 100, 0)
    );
    drop(sender);
    // Stopping writes everything to Parquet.
    collector.stop().await;
    assert!(!dir.path().join("endpoint").exists());
    let collector = Collector::start(raw(dir.path())).await;
    let status = collector.client().await.status().await.unwrap();
    assert_eq!(
        (status.hot_rows, status.files, status.quarantined),
        (0, 2, 0)
    );
    assert_eq!(collector.text(ALL_VCPUS).await, before);
    // Memory and files together.
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 21..=25, 4)).await;
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 100);
    let late = "SELECT count(*) FROM vcpus WHERE ts > TIMESTAMP '2026-01-01T00:03:00Z'";
    assert_eq!(collector.number(late).await, 4 * 7);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_acked_and_dropped_also_after_trim_and_restart() {
    let _turn = alone().await;
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let collector = Collector::start(raw(dir.path())).await;
        let mut sender = collector.sender().await;
        sender.push_all(&batches("a", 1..=10, 3)).await;
        assert_eq!(
            collector.number("SELECT count(*) FROM vcpus").await,
            30,
            "round {round}"
        );
        let status = collector.client().await.status().await.unwrap();
        assert_eq!(status.duplicate_batches, if round == 0 { 0 } else { 10 });
        drop(sender);
        collector.stop().await;
        // All of it is in Parquet: only the marks are left in the log.
        let log: u64 = files(&dir.path().join("log"), ".wal")
            .iter()
            .map(|p| p.metadata().unwrap().len())
            .sum();
        assert!(log < 200, "{log} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_without_dedupe_the_duplicates_show() {
    let _turn = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=5, 2)).await;
    crate::ingest::tests::DEDUPE.store(false, std::sync::atomic::Ordering::SeqCst);
    sender.push_all(&batches("a", 1..=5, 2)).await;
    crate::ingest::tests::DEDUPE.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(collector.number("SELECT count(*) FROM vcpus").await, 20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recommendations_show_the_latest_state() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let row = |id: &str, ts: i64, state: &str| RecommendationRow {
        ts,
        id: id.into(),
        made_at: T0,
        kind: "scale_up".into(),
        subject: "vm/1".into(),
        confidence: 0.9,
        state: state.into(),
        payload: "{}".into(),
    };
    // Both states of rec_b are of one instant.
    let rows = [
        row("rec_a", T0, "proposed"),
        row("rec_a", T0 + 5, "delivered"),
        row("rec_b", T0, "delivered"),
        row("rec_b", T0, "proposed"),
    ];
    collector
        .sender()
        .await
        .push_all(&[wire("f", 1, 1, vec![Chunk::of(&rows)])])
        .await;
    let shown = collector
        .text(
            "SELECT id, kind, subject, confidence, state, payload FROM recommendations ORDER BY id",
        )
        .await;
    let expected = "\
+-------+----------+---------+------------+-----------+---------+
| id    | kind     | subject | confidence | state     | payload |
+-------+----------+---------+------------+-----------+---------+
| rec_a | scale_up | vm/1    | 0.9        | delivered | {}      |
| rec_b | scale_up | vm/1    | 0.9        | delivered | {}      |
+-------+----------+---------+------------+-----------+---------+";
    assert_eq!(shown, expected);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_reads_the_same_beside_a_collector_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=8, 2)).await;
    let online = collector.text(ALL_VCPUS).await;
    let offline = || async {
        let (_, rows) = crate::offline(dir.path())
            .await
            .unwrap()
            .collect(ALL_VCPUS)
            .await
            .unwrap();
        arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string()
    };
    assert_eq!(offline().await, online);
    drop(sender);
    collector.stop().await;
    assert_eq!(offline().await, online);
    let missing = dir.path().join("nowhere");
    let error = crate::offline(&missing)
        .await
        .err()
        .expect("an error")
        .to_string();
    assert!(error.contains("no collector data in"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_collector_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let second = crate::run(raw(dir.path()).validate().unwrap(), std::future::pending()).await;
    let error = second.unwrap_err().to_string();
    assert!(
        error.contains(&format!("in use by process {}", std::process::id())),
        "{error}"
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_there_before_the_first_row() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    for table in headroom_core::metric::TABLES {
        assert_eq!(
            collector
                .number(&format!("SELECT count(*) FROM {}", table.name))
                .await,
            0
        );
        assert!(
            dir.path()
                .join("tables")
                .join(table.name)
                .join("_delta_log/00000000000000000000.json")
                .exists()
        );
    }
    let unit = "SELECT count(*) FROM column_comments WHERE table_name = 'vcpus' AND column_name = 'ready_ns' AND unit = 'ns'";
    assert_eq!(collector.number(unit).await, 1);
    let (schema, _) = collector
        .client()
        .await
        .sql("SELECT ready_ns FROM vcpus")
        .await
        .unwrap();
    assert_eq!(schema.field(0).metadata()["unit"], "ns");
    collector.stop().await;
}

//! The HTTP door as a client sees it.

use headroom_core::batch::Chunk;
use headroom_core::rows::{HostRow, VmRow};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use super::harness::*;

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// Of a collector's directory.
fn url(dir: &std::path::Path, path: &str) -> String {
    let address = std::fs::read_to_string(dir.join("endpoint.http")).unwrap();
    format!("http://{}{path}", address.trim())
}

async fn ask(dir: &std::path::Path, path: &str, statement: &str) -> Response {
    let request = client().post(url(dir, path)).body(statement.to_owned());
    request.send().await.unwrap()
}

async fn json(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn refused(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    let body = json(answer).await;
    (status, body["error"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_comes_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    collector
        .sender()
        .await
        .push_all(&batches("a", 1..=3, 4))
        .await;
    let dir = dir.path();
    let one =
        "SELECT ts, host, vcpu, ready_wake_ns, ready_hist FROM vcpus ORDER BY ts, vcpu LIMIT 1";
    let rows = json(ask(dir, "/v1/sql", one).await).await;
    assert_eq!(rows[0]["ts"], "2026-01-01T00:00:10.000000Z");
    assert_eq!(
        (&rows[0]["host"], &rows[0]["vcpu"]),
        (&"a".into(), &0.into())
    );
    assert_eq!(rows[0]["ready_wake_ns"], Value::Null);
    assert!(
        rows[0]["ready_hist"]
            .as_str()
            .is_some_and(|h| h.len() % 4 == 0)
    );
    let csv = ask(dir, "/v1/sql?format=csv", "SELECT count(*) AS n FROM vcpus").await;
    assert_eq!(
        csv.headers()["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    assert_eq!(csv.text().await.unwrap(), "n\n12\n");
    let get = client().get(url(dir, "/v1/sql?q=SELECT%201%20AS%20n"));
    let get = get
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    assert_eq!(get.text().await.unwrap(), "{\"n\":1}\n");
    let arrow = ask(dir, "/v1/sql?format=arrow", one)
        .await
        .bytes()
        .await
        .unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap();
    assert_eq!(reader.map(|b| b.unwrap().num_rows()).sum::<usize>(), 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_json_with_a_status_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let dir = dir.path();
    let (status, why) = refused(ask(dir, "/v1/sql", "SELECT nothing FROM vcpus").await).await;
    assert_eq!(status, 400);
    assert!(why.contains("nothing"), "{why}");
    assert_eq!(
        refused(ask(dir, "/v1/sql", "DROP TABLE vcpus").await)
            .await
            .0,
        400
    );
    assert_eq!(
        refused(ask(dir, "/v1/sql?format=xml", "SELECT 1").await)
            .await
            .0,
        400
    );
    for long in [100 << 10, 1 << 20] {
        let statement = format!("SELECT 1 -- {}", "x".repeat(long));
        assert_eq!(refused(ask(dir, "/v1/sql", &statement).await).await.0, 413);
    }
    assert_eq!(
        refused(client().get(url(dir, "/v1/sql")).send().await.unwrap())
            .await
            .0,
        400
    );
    assert_eq!(
        refused(client().get(url(dir, "/x")).send().await.unwrap())
            .await
            .0,
        404
    );
    let foreign = client()
        .get(url(dir, "/metrics"))
        .header("host", "evil.example");
    assert_eq!(refused(foreign.send().await.unwrap()).await.0, 421);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_comes_whole_and_one_that_fails_breaks_off() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let rows = batches("a", 1..=1, 700);
    collector.sender().await.push_all(&rows).await;
    let many = "SELECT a.vcpu * 700 + b.vcpu AS n FROM vcpus a CROSS JOIN vcpus b";
    let text = ask(dir.path(), "/v1/sql", many).await.text().await.unwrap();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.len(), 490_000);
    // The last row divides by 0, long after the head went out.
    let late = "SELECT 1 / (489999 - a.vcpu * 700 - b.vcpu) AS n FROM vcpus a CROSS JOIN vcpus b";
    let answer = ask(dir.path(), "/v1/sql?format=ndjson", late).await;
    if answer.status() == 200 {
        assert!(answer.text().await.is_err(), "looks whole");
    } else {
        assert_eq!(answer.status(), 400);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_is_told_by_metrics_health_and_status() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(raw(dir.path())).await;
    let mut sender = collector.sender().await;
    sender.push_all(&batches("a", 1..=3, 4)).await;
    assert_eq!(sender.push(&batch("a", 1, 2, 4)).await.refused, "");
    let dir = dir.path();
    assert_eq!(ask(dir, "/v1/sql", "SELECT 1").await.status(), 200);
    assert_eq!(ask(dir, "/v1/sql", "SELEC").await.status(), 400);
    let get = async |path| client().get(url(dir, path)).send().await.unwrap();
    let answered = "headroom_collector_queries_total{door=\"http\",outcome=\"answered\"} 1";
    let page = tokio::time::timeout(PATIENCE, async {
        loop {
            // An answer is counted after its last byte.
            let page = get("/metrics").await.text().await.unwrap();
            if page.contains(answered) {
                return page;
            }
        }
    });
    let page = page.await.unwrap();
    for line in [
        "headroom_collector_acked_rows_total 15",
        "headroom_collector_acked_batches_total 3",
        "headroom_collector_duplicate_batches_total 1",
        "headroom_collector_queries_total{door=\"http\",outcome=\"invalid\"} 1",
        "headroom_collector_refusing 0",
        "headroom_collector_hot_rows 15",
        "headroom_collector_agents 1",
        "headroom_collector_files{table=\"vcpus\"} 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    assert!(
        page.contains("timestamp_seconds{host=\"a\",agent_id=\"a\"} "),
        "{page}"
    );
    let status = json(get("/v1/status").await).await;
    assert_eq!(
        (&status["acked_rows"], &status["refusing"]),
        (&15.into(), &Value::Null)
    );
    assert_eq!(get("/healthz").await.status(), 200);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_why_batches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let small = crate::config::Raw {
        hot_limit: "64 KiB".into(),
        flush: "1h".into(),
        flush_size: "1 GiB".into(),
        ..raw(dir.path())
    };
    let collector = Collector::start(small).await;
    let mut sender = collector.sender().await;
    let ack = sender.push(&batch("a", 1, 1, 5000)).await;
    assert!(ack.refused.contains("hot_limit"), "{}", ack.refused);
    let health = client()
        .get(url(dir.path(), "/healthz"))
        .send()
        .await
        .unwrap();
    let (status, why) = refused(health).await;
    assert_eq!(status, 503);
    assert!(why.contains("hot_limit"), "{why}");
    collector.stop().await;
}

/// One window of a host and its VM.
pub fn window(seq: u64, ts: i64) -> headroom_proto::v1::Batch {
    let vm = VmRow {
        ts,
        host: "h".into(),
        vm_id: "v".into(),
        vm_name: "web".into(),
        vcpus: 2,
        run_ns: 1_500_000_000,
        ..VmRow::default()
    };
    let host = HostRow {
        ts,
        host: "h".into(),
        window_ns: 10,
        vcpus: 2,
        vm_ready_ns: 5,
        ..HostRow::default()
    };
    wire("h", 1, seq, vec![Chunk::of(&[vm]), Chunk::of(&[host])])
}

//! Remote-write over a real connection, to a receiver that also fails. That a
//! Prometheus takes it too is tested in `tests/`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use prost::Message as _;

use super::harness::*;
use super::http::window;
use crate::config::RemoteWriteRaw;
use crate::remote_write::wire::WriteRequest;

/// What came, by series, and the statuses to answer first.
#[derive(Default)]
struct Receiver {
    series: Mutex<BTreeMap<String, Vec<(i64, f64)>>>,
    statuses: Mutex<Vec<u16>>,
    tokens: Mutex<Vec<String>>,
}

async fn receive(State(to): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Some(status) = to.statuses.lock().unwrap().pop() {
        return StatusCode::from_u16(status).unwrap();
    }
    assert_eq!(headers["content-encoding"], "snappy");
    assert_eq!(headers["x-prometheus-remote-write-version"], "0.1.0");
    to.tokens
        .lock()
        .unwrap()
        .push(headers["authorization"].to_str().unwrap().into());
    let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    for series in WriteRequest::decode(&plain[..]).unwrap().timeseries {
        assert!(series.labels.is_sorted(), "{:?}", series.labels);
        let labels = series
            .labels
            .iter()
            .map(|l| format!("{}={}", l.name, l.value));
        let name = labels.collect::<Vec<_>>().join(" ");
        let samples = series.samples.iter().map(|s| (s.timestamp, s.value));
        to.series
            .lock()
            .unwrap()
            .entry(name)
            .or_default()
            .extend(samples);
    }
    StatusCode::NO_CONTENT
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let reached = async {
        while !reached() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_window_is_sent_once_also_after_failures() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let receiver = Arc::new(Receiver::default());
    *receiver.statuses.lock().unwrap() = vec![429, 503];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new()
        .route("/write", post(receive))
        .with_state(Arc::clone(&receiver));
    tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let config = crate::config::Raw {
        remote_write: RemoteWriteRaw {
            url: format!("http://{address}/write"),
            every: "50ms".into(),
            token_file: token.to_str().unwrap().into(),
        },
        ..raw(&dir.path().join("data"))
    };
    let collector = Collector::start(config).await;
    let mut sender = collector.sender().await;
    for seq in 1..=3 {
        let ts = T0 + i64::try_from(seq).unwrap() * 10_000_000;
        sender.push_all(&[window(seq, ts)]).await;
    }
    // Came again, and older than what was sent: neither goes out.
    sender.push(&window(3, T0)).await;
    sender.push_all(&[window(4, T0)]).await;
    let run =
        "__name__=headroom_vm_run_seconds_total host=h instance=h job=headroom vm_id=v vm_name=web";
    let ms = T0 / 1000;
    let of = |name: &str| {
        receiver
            .series
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    };
    until("three windows", || of(run).len() >= 3).await;
    collector.stop().await;
    assert_eq!(
        of(run),
        [(ms + 10_000, 1.5), (ms + 20_000, 3.0), (ms + 30_000, 4.5)]
    );
    let pressure = of("__name__=headroom_node_pressure host=h instance=h job=headroom");
    assert_eq!(pressure.iter().map(|s| s.1).collect::<Vec<_>>(), [0.25; 3]);
    assert!(
        receiver
            .tokens
            .lock()
            .unwrap()
            .iter()
            .all(|t| t == "Bearer secret")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_holds_up_nothing_and_is_counted() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = crate::config::Raw {
        remote_write: RemoteWriteRaw {
            url: format!("http://{closed}/write"),
            every: "1ms".into(),
            ..RemoteWriteRaw::default()
        },
        ..raw(dir.path())
    };
    let collector = Collector::start(config).await;
    let mut sender = collector.sender().await;
    let mut seq = 0;
    let page = tokio::time::timeout(PATIENCE, async {
        loop {
            seq += 1;
            sender
                .push_all(&[window(seq, T0 + i64::try_from(seq).unwrap() * 1_000_000)])
                .await;
            let address = std::fs::read_to_string(dir.path().join("endpoint.http")).unwrap();
            let page = reqwest::get(format!("http://{}/metrics", address.trim())).await;
            let page = page.unwrap().text().await.unwrap();
            let none = "samples_total{outcome=\"no_room\"} 0\n";
            if !page.contains(none) && page.contains("headroom_remote_write_failures_total ") {
                return page;
            }
        }
    });
    let page = page.await.expect("samples are dropped");
    assert!(
        page.contains(&format!("headroom_collector_acked_batches_total {seq}\n")),
        "{page}"
    );
    assert!(
        page.contains("samples_total{outcome=\"sent\"} 0\n"),
        "{page}"
    );
    collector.stop().await;
}

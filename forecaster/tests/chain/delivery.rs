//! Delivery against a receiver that fails, refuses and slows down.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headroom_forecaster::clock::{self, SECOND};
use headroom_forecaster::config::Cidr;
use headroom_forecaster::gate::Recommendation;
use headroom_forecaster::notify::{Deliverer, Outbox, Schedule, Secret, State, check_url};

use crate::receiver::{Receiver, Request};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Setup {
    outbox: Arc<Mutex<Outbox>>,
    deliverer: Deliverer,
}

/// What a process has after its start on that directory.
fn start(dir: &Path, url: &str, allow: &[&str]) -> Setup {
    // Done once per process by `run`; a second time is no error.
    drop(rustls::crypto::ring::default_provider().install_default());
    let outbox = Arc::new(Mutex::new(Outbox::open(&dir.join("outbox")).unwrap()));
    let schedule = Schedule(vec![Duration::from_millis(1)]);
    let allow = allow.iter().map(|c| Cidr::parse(c).unwrap()).collect();
    let deliverer = Deliverer::new(Arc::clone(&outbox), dir, schedule);
    let deliverer = deliverer.to(
        check_url(url).unwrap(),
        Secret::parse(SECRET).unwrap(),
        allow,
    );
    Setup { outbox, deliverer }
}

fn loopback(dir: &Path, receiver: &Receiver) -> Setup {
    start(dir, &receiver.url(), &["127.0.0.0/8"])
}

fn made(id: &str, valid: i64) -> Recommendation {
    let now = clock::now();
    let body = format!(
        r#"{{"id":"{id}","type":"x","data":{{"kind":"capacity","reason":"r","ack":{{}}}}}}"#
    );
    Recommendation {
        id: id.into(),
        made_at: now,
        expires_at: now + valid,
        kind: "capacity",
        subject: "host/h1".into(),
        confidence: 0.9,
        body,
    }
}

fn state(setup: &Setup, id: &str) -> State {
    setup.outbox.lock().unwrap().get(id).unwrap().state
}

fn logged(setup: &Setup) -> Vec<String> {
    setup
        .outbox
        .lock()
        .unwrap()
        .unstored()
        .into_iter()
        .map(|r| r.state)
        .collect()
}

/// Rounds until that many messages were delivered in all; bounded.
async fn deliver(setup: &mut Setup, count: usize) {
    let mut delivered = 0;
    for _ in 0..3000 {
        delivered += setup.deliverer.round().await.unwrap().delivered;
        if delivered >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{delivered} of {count} messages were delivered");
}

fn signed(request: &Request) -> bool {
    let timestamp = request.header("webhook-timestamp").parse().unwrap();
    let wanted =
        Secret::parse(SECRET)
            .unwrap()
            .sign(request.header("webhook-id"), timestamp, &request.body);
    request.header("webhook-signature") == wanted
        && request.header("content-type") == "application/cloudevents+json"
}

#[tokio::test]
async fn failures_are_retried_with_the_same_id_and_body() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&["500 No", "404 No", "200 OK"]).await;
    let mut setup = loopback(dir.path(), &receiver);
    Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
    deliver(&mut setup, 1).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests
            .iter()
            .all(|r| r.header("webhook-id") == "rec_A" && r.body == requests[0].body && signed(r))
    );
    assert_eq!(logged(&setup), ["proposed", "delivered"]);
    for _ in 0..5 {
        setup.deliverer.round().await.unwrap();
    }
    assert_eq!(receiver.requests().len(), 3, "delivered is sent no more");
}

#[tokio::test]
async fn restart_resumes_and_sends_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&["204 No Content", "503 No"]).await;
    let mut first = loopback(dir.path(), &receiver);
    Deliverer::propose(&first.outbox, made("rec_A", 600 * SECOND)).unwrap();
    deliver(&mut first, 1).await;
    Deliverer::propose(&first.outbox, made("rec_B", 600 * SECOND)).unwrap();
    first.deliverer.round().await.unwrap();
    assert_eq!(
        (state(&first, "rec_A"), state(&first, "rec_B")),
        (State::Delivered, State::Pending)
    );
    drop(first);
    std::fs::write(dir.path().join("outbox/rec_C.json.tmp"), "half a mess").unwrap();
    let mut second = loopback(dir.path(), &receiver);
    assert_eq!(
        second.outbox.lock().unwrap().get("rec_B").unwrap().attempts,
        1
    );
    deliver(&mut second, 1).await;
    drop(second);
    let mut third = loopback(dir.path(), &receiver);
    third.deliverer.round().await.unwrap();
    let ids: Vec<String> = receiver
        .requests()
        .iter()
        .map(|r| r.header("webhook-id").to_owned())
        .collect();
    assert_eq!(ids, ["rec_A", "rec_B", "rec_B"]);
}

#[tokio::test]
async fn gone_disables_the_endpoint_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&["410 Gone"]).await;
    let mut setup = loopback(dir.path(), &receiver);
    Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
    setup.deliverer.round().await.unwrap();
    drop(setup);
    let mut again = loopback(dir.path(), &receiver);
    tokio::time::sleep(Duration::from_millis(5)).await;
    again.deliverer.round().await.unwrap();
    assert_eq!(receiver.requests().len(), 1);
    // Another receiver is not disabled.
    let other = Receiver::start(&[]).await;
    let mut moved = loopback(dir.path(), &other);
    deliver(&mut moved, 1).await;
}

#[tokio::test]
async fn redirects_are_failures_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let other = Receiver::start(&[]).await;
    let to = format!("302 Found\r\nlocation: {}", other.url());
    let receiver = Receiver::start(&[&to]).await;
    let mut setup = loopback(dir.path(), &receiver);
    Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
    let report = setup.deliverer.round().await.unwrap();
    assert_eq!((report.delivered, report.failed), (0, 1));
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_receiver_that_asks_for_peace_gets_it() {
    for answer in [
        "429 Slow\r\nretry-after: 3000",
        "502 Bad Gateway",
        "504 Timeout\r\nretry-after: Wed, 21 Oct 2099 07:28:00 GMT",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let receiver = Receiver::start(&[answer]).await;
        let mut setup = loopback(dir.path(), &receiver);
        Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
        setup.deliverer.round().await.unwrap();
        Deliverer::propose(&setup.outbox, made("rec_B", 600 * SECOND)).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        setup.deliverer.round().await.unwrap();
        assert_eq!(receiver.requests().len(), 1, "{answer}");
    }
}

#[tokio::test]
async fn expired_is_told_once_by_a_message_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&["500 No"]).await;
    let mut setup = loopback(dir.path(), &receiver);
    // Valid long enough for one attempt; then its end is moved before now.
    Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
    setup.deliverer.round().await.unwrap();
    let mut message = setup.outbox.lock().unwrap().get("rec_A").unwrap().clone();
    message.expires_at = clock::now() - 1;
    setup.outbox.lock().unwrap().put(message).unwrap();
    deliver(&mut setup, 1).await;
    for _ in 0..5 {
        setup.deliverer.round().await.unwrap();
    }
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    let told: serde_json::Value = serde_json::from_str(&requests[1].body).unwrap();
    assert_eq!(told["type"], "io.headroom.recommendation.withdrawn.v1");
    assert_eq!(told["causationid"], "rec_A");
    assert_eq!(told["id"], requests[1].header("webhook-id"));
    assert_eq!(told["data"].get("ack"), None);
    assert_ne!(told["id"], "rec_A");
    assert_eq!(logged(&setup), ["proposed", "expired"]);
}

#[tokio::test]
async fn withdrawn_after_delivery_is_told_and_before_it_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let mut setup = loopback(dir.path(), &receiver);
    Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
    deliver(&mut setup, 1).await;
    Deliverer::propose(&setup.outbox, made("rec_B", 600 * SECOND)).unwrap();
    for id in ["rec_A", "rec_B", "rec_A"] {
        Deliverer::withdraw(&setup.outbox, id, "it is over", clock::now()).unwrap();
    }
    deliver(&mut setup, 1).await;
    setup.deliverer.round().await.unwrap();
    let causes: Vec<_> = receiver
        .requests()
        .iter()
        .map(|r| serde_json::from_str::<serde_json::Value>(&r.body).unwrap()["causationid"].clone())
        .collect();
    assert_eq!(causes, [serde_json::Value::Null, "rec_A".into()]);
    assert_eq!(
        logged(&setup),
        [
            "proposed",
            "delivered",
            "withdrawn",
            "proposed",
            "withdrawn"
        ]
    );
}

#[tokio::test]
async fn loopback_is_refused_without_a_network_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    for url in [
        receiver.url(),
        receiver.url().replace("127.0.0.1", "localhost"),
    ] {
        let mut setup = start(dir.path(), &url, &["10.0.0.0/8"]);
        Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
        assert_eq!(setup.deliverer.round().await.unwrap().failed, 1);
    }
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn messages_leave_the_disk_when_their_states_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let mut setup = loopback(dir.path(), &receiver);
    Deliverer::propose(&setup.outbox, made("rec_A", 600 * SECOND)).unwrap();
    deliver(&mut setup, 1).await;
    let mut outbox = setup.outbox.lock().unwrap();
    let rows = outbox.unstored();
    outbox.stored(&rows, clock::now()).unwrap();
    assert!(outbox.get("rec_A").is_some(), "it may still be withdrawn");
    outbox.stored(&[], clock::now() + 601 * SECOND).unwrap();
    assert!(outbox.get("rec_A").is_none());
    assert_eq!(
        std::fs::read_dir(dir.path().join("outbox"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_corrupt_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rec_A.json"), "{").unwrap();
    let outbox = Outbox::open(dir.path()).unwrap();
    assert_eq!(outbox.iter().count(), 0);
    assert!(dir.path().join("rec_A.corrupt").exists());
}

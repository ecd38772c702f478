//! The whole chain: a ramp in a guest's demand becomes a signed recommendation.

use std::path::Path;
use std::time::Duration;

use headroom_forecaster::clock::{self, SECOND};
use headroom_forecaster::{Raw, run};

use crate::collector::{Collector, VCPUS, Window, texts};
use crate::python::judge;
use crate::receiver::Receiver;

fn config(collector: &str, receiver: &Receiver, dir: &Path) -> headroom_forecaster::Config {
    let text = format!(
        "collector = \"{collector}\"\ndata_dir = \"{}\"\nevery = \"200ms\"\nhorizon = \"90s\"\nmin_history = \"20s\"\n\
         [webhook]\nurl = \"{}\"\nallow = [\"127.0.0.0/8\"]",
        dir.display(),
        receiver.url(),
    );
    toml::from_str::<Raw>(&text).unwrap().validate().unwrap()
}

/// 80 s of a ramp that reaches 80 % of the vCPUs 60 s from now.
fn ramp() -> Vec<Window> {
    let now = clock::now() / SECOND * SECOND;
    let window = |i: i64| {
        let wobble = [0.004, -0.006, 0.002, -0.001, 0.005][usize::try_from(i % 5).unwrap()];
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let ratio = 0.8 - 0.006 * (60 + 80 - i) as f64 + wobble;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let demand = ratio.max(0.0) * VCPUS as f64;
        Window {
            ts: now - (80 - i) * SECOND,
            ns: 1_000_000_000,
            demand,
            ready: 0.001,
            busy: true,
        }
    };
    (1..=80).map(window).collect()
}

struct Running {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn spawn(config: headroom_forecaster::Config) -> Running {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(run(config, async move { drop(stopped.await) }));
    Running { stop, task }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn ramp_becomes_a_recommendation_before_the_limit_is_crossed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let collector = Collector::default();
    *collector.windows.lock().unwrap() = ramp();
    *collector.refuse.lock().unwrap() = 1;
    let address = collector.serve().await.to_string();
    let running = spawn(config(&address, &receiver, dir.path()));
    let requests = receiver.wait_for(1).await;
    until("states stored", || {
        collector.states().iter().any(|s| s == "delivered")
    })
    .await;
    running.stop().await;

    let event: serde_json::Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!(
        event["type"], "io.headroom.recommendation.scale_up.v1",
        "{event:#}"
    );
    assert_eq!(event["subject"], "vm/v'1");
    let data = &event["data"];
    assert_eq!(data["change"]["vcpus"]["from"], 2);
    assert!(data["lead_time_s"].as_i64().unwrap() > 0, "{data:#}");
    assert!(
        data["evidence"][0]["value"].as_f64().unwrap()
            < data["evidence"][0]["threshold"].as_f64().unwrap()
    );
    assert!(
        data["evidence"][0]["sql"]
            .as_str()
            .unwrap()
            .contains("vm_id = 'v''1'")
    );
    assert!(data["forecast"]["points"].as_array().unwrap().len() <= 30);

    let secret = std::fs::read_to_string(dir.path().join("forecaster/webhook.secret")).unwrap();
    let signed: Vec<_> = requests
        .iter()
        .map(|r| (r.body.clone(), r.headers.clone()))
        .collect();
    judge(&signed, secret.trim());

    let pushed = collector.pushed.lock().unwrap().clone();
    let seqs: Vec<u64> = pushed.iter().map(|b| b.seq).collect();
    assert!(
        seqs.windows(2).all(|w| w[1] == w[0] + 1) && seqs[0] == 1,
        "{seqs:?}"
    );
    let first = headroom_proto::convert::from_wire(&pushed[0])
        .unwrap()
        .batch;
    let forecasts = first
        .chunks
        .iter()
        .find(|c| c.table.name == "forecasts")
        .unwrap();
    let mut metrics = texts(forecasts, "metric");
    metrics.sort();
    metrics.dedup();
    assert_eq!(metrics, ["demand_vcpus", "ready_ratio"]);
}

#[tokio::test]
async fn a_restart_neither_sends_nor_recommends_again() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let collector = Collector::default();
    *collector.windows.lock().unwrap() = ramp();
    let address = collector.serve().await.to_string();
    let running = spawn(config(&address, &receiver, dir.path()));
    until("delivered", || {
        collector.states().iter().any(|s| s == "delivered")
    })
    .await;
    running.stop().await;
    let before = (
        receiver.requests().len(),
        collector.pushed.lock().unwrap().len(),
    );
    let agents = |c: &Collector| {
        c.pushed
            .lock()
            .unwrap()
            .iter()
            .map(|b| b.agent_id.clone())
            .collect::<Vec<_>>()
    };
    let running = spawn(config(&address, &receiver, dir.path()));
    until("five more rounds", || {
        collector.pushed.lock().unwrap().len() >= before.1 + 5
    })
    .await;
    running.stop().await;
    assert_eq!(receiver.requests().len(), before.0);
    assert!(agents(&collector).windows(2).all(|w| w[0] == w[1]));
}

#[tokio::test]
async fn a_collector_that_comes_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let running = spawn(config(&address.to_string(), &receiver, dir.path()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let collector = Collector::default();
    *collector.windows.lock().unwrap() = ramp();
    collector.serve_on(tokio::net::TcpListener::bind(address).await.unwrap());
    receiver.wait_for(1).await;
    running.stop().await;
}

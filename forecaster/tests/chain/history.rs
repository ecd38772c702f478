//! History read by SQL.

use std::time::Duration;

use headroom_forecaster::clock::SECOND;
use headroom_forecaster::history::{History, Metric, Series, SqlClient, Subject, channel};

use crate::collector::{Collector, Window};

const START: i64 = 1_800_000_000 * SECOND;

fn windows(n: i64, length: i64) -> Vec<Window> {
    // Ends jitter by up to 3 ms around multiples of the length.
    let window = |i: i64| Window {
        ts: START + i * length + (i % 7 - 3) * 1000,
        ns: length * 1000,
        demand: 0.5,
        ready: 0.02,
        busy: true,
    };
    (1..=n).map(window).collect()
}

async fn history(collector: &Collector, max_points: usize, horizon: u64) -> History {
    let address = collector.serve().await;
    let client = SqlClient::new(channel(&format!("http://{address}")).unwrap());
    History::new(client, max_points, Duration::from_secs(horizon))
}

fn find(series: &[Series], key: &str, metric: Metric) -> Series {
    series
        .iter()
        .find(|s| s.subject.key() == key && s.metric == metric)
        .unwrap()
        .clone()
}

#[tokio::test]
async fn demand_and_ready_of_vms_and_hosts() {
    let collector = Collector::default();
    *collector.windows.lock().unwrap() = windows(50, 10 * SECOND);
    let mut history = history(&collector, 720, 600).await;
    history.refresh(START + 500 * SECOND).await.unwrap();
    assert_eq!(history.steps(), 60);
    let series = history.series();
    assert_eq!(series.len(), 4);
    let vm = find(&series, "vm/v'1", Metric::DemandVcpus);
    assert_eq!(
        (vm.values.len(), vm.step, vm.end),
        (50, 10 * SECOND, START + 500 * SECOND)
    );
    assert!(
        vm.values.iter().all(|v| (v - 0.5).abs() < 1e-9),
        "{:?}",
        vm.values
    );
    let Subject::Vm(meta) = &vm.subject else {
        panic!()
    };
    assert_eq!(
        (
            meta.name.as_str(),
            meta.host.as_str(),
            meta.vcpus,
            &meta.tenant
        ),
        ("etl", "h1", 2, &None)
    );
    let ready = find(&series, "host/h1", Metric::ReadyRatio);
    assert!(ready.values.iter().all(|v| (v - 0.02).abs() < 1e-9));
    let host = find(&series, "host/h1", Metric::DemandVcpus);
    assert!(host.values.iter().all(|v| (v - 1.0).abs() < 1e-9));
}

#[tokio::test]
async fn refresh_asks_for_the_latest_bins_only_and_takes_late_windows() {
    let collector = Collector::default();
    let all = windows(100, SECOND);
    *collector.windows.lock().unwrap() = all[..60].to_vec();
    let mut history = history(&collector, 720, 60).await;
    history.refresh(START + 60 * SECOND).await.unwrap();
    let mut late = all.clone();
    late[59].demand = 1.5;
    *collector.windows.lock().unwrap() = late;
    collector.statements.lock().unwrap().clear();
    history.refresh(START + 100 * SECOND).await.unwrap();
    let vm = find(&history.series(), "vm/v'1", Metric::DemandVcpus);
    assert_eq!(vm.values.len(), 100);
    assert!((vm.values[59] - 1.5).abs() < 1e-9 && (vm.values[58] - 0.5).abs() < 1e-9);
    let statements = collector.statements.lock().unwrap().clone();
    assert_eq!(statements.len(), 2, "{statements:?}");
}

#[tokio::test]
async fn short_gaps_are_filled_and_long_ones_cut() {
    let collector = Collector::default();
    let mut all = windows(100, SECOND);
    all.drain(79..82);
    all.drain(20..40);
    *collector.windows.lock().unwrap() = all;
    let mut history = history(&collector, 720, 60).await;
    history.refresh(START + 100 * SECOND).await.unwrap();
    let vm = find(&history.series(), "vm/v'1", Metric::DemandVcpus);
    assert_eq!(vm.values.len(), 60);
    assert!(vm.values.iter().all(|v| (v - 0.5).abs() < 1e-9));
}

#[tokio::test]
async fn history_is_capped_and_the_step_grows_with_it() {
    let collector = Collector::default();
    *collector.windows.lock().unwrap() = windows(3000, 10 * SECOND);
    let mut history = history(&collector, 100, 3600).await;
    history.refresh(START + 30_000 * SECOND).await.unwrap();
    let vm = find(&history.series(), "vm/v'1", Metric::DemandVcpus);
    // 30 000 s in 100 points need 300 s; the horizon keeps 12 steps.
    assert_eq!((vm.step, history.steps()), (300 * SECOND, 12));
    assert!((90..=101).contains(&vm.values.len()), "{}", vm.values.len());
}

#[tokio::test]
async fn nothing_stored_yet_is_no_error() {
    let collector = Collector::default();
    let mut history = history(&collector, 720, 60).await;
    history.refresh(START).await.unwrap();
    assert!(history.series().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_away_is_an_error_and_then_none() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = SqlClient::new(channel(&format!("http://{address}")).unwrap());
    let mut history = History::new(client, 720, Duration::from_secs(60));
    assert!(history.refresh(START + 60 * SECOND).await.is_err());
    let collector = Collector::default();
    *collector.windows.lock().unwrap() = windows(60, SECOND);
    collector.serve_on(tokio::net::TcpListener::bind(address).await.unwrap());
    history.refresh(START + 60 * SECOND).await.unwrap();
    assert_eq!(history.series().len(), 4);
}

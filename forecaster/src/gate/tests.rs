//! On synthetic windows: each series is made here from a formula.

use std::time::Duration;

use super::*;
use crate::clock::rfc3339;
use crate::config::Raw;
use crate::history::{Host, Metric, Series, Subject, Vm};
use crate::model::float;
use crate::service::{Choices, forecast_all};

const START: Micros = 1_800_000_000 * SECOND;
const HORIZON: usize = 90;

fn vm(host: &str, vcpus: i64) -> Subject {
    let (id, name) = ("9b0c6c1e".into(), "etl".into());
    Subject::Vm(Vm {
        id,
        name,
        host: host.into(),
        vcpus,
        platform: "qemu".into(),
        tenant: Some("data".into()),
    })
}

fn host(name: &str, threads: i64) -> Subject {
    Subject::Host(Host {
        name: name.into(),
        threads,
        vcpus: 6,
    })
}

/// `n` windows of 1 s, ending `n` seconds after the start, with a little noise.
fn series(subject: Subject, metric: Metric, n: usize, f: impl Fn(f64) -> f64) -> Series {
    let wobble = |i: usize| [0.004, -0.006, 0.002, -0.001, 0.005, -0.003, 0.0][i % 7];
    let values = (0..n)
        .map(|i| (f(float(i)) * (1.0 + wobble(i * i))).max(0.0))
        .collect();
    let end = START + SECOND * i64::try_from(n).unwrap();
    Series {
        subject,
        metric,
        values,
        end,
        step: SECOND,
        window: SECOND,
    }
}

fn outlooks(all: Vec<Series>) -> Vec<Outlook> {
    forecast_all(
        all,
        &mut Choices::default(),
        HORIZON,
        Duration::from_secs(60),
    )
}

fn gate(dir: &Path) -> Gate {
    let text = "min_history = \"20s\"\nhorizon = \"90s\"";
    Gate::open(
        toml::from_str::<Raw>(text)
            .unwrap()
            .validate()
            .unwrap()
            .gate,
        dir,
    )
    .unwrap()
}

fn proposed(decisions: Vec<Decision>) -> Vec<Recommendation> {
    let made = decisions.into_iter().filter_map(|d| match d {
        Decision::Propose(made) => Some(made),
        Decision::Withdraw { .. } => None,
    });
    made.collect()
}

fn at(n: usize) -> Micros {
    START + SECOND * i64::try_from(n).unwrap()
}

fn event(made: &Recommendation) -> serde_json::Value {
    serde_json::from_str(&made.body).unwrap()
}

#[test]
fn ramp_is_recommended_before_it_crosses() {
    // 10 % → 100 % of 2 vCPUs within 150 s after 60 s at 10 %: 80 % at 177 s.
    let demand = |t: f64| 2.0 * (0.1 + 0.9 * ((t - 60.0) / 150.0).clamp(0.0, 1.0));
    let dir = tempfile::tempdir().unwrap();
    let (mut gate, mut choices) = (gate(dir.path()), Choices::default());
    let mut first = None;
    for n in (25..=230).step_by(2) {
        let all = vec![
            series(vm("h1", 2), Metric::DemandVcpus, n, demand),
            series(host("h1", 8), Metric::DemandVcpus, n, |t| 0.5 + demand(t)),
        ];
        let outlooks = forecast_all(all, &mut choices, HORIZON, Duration::from_secs(60));
        for made in proposed(gate.evaluate(&outlooks, at(n))) {
            first.get_or_insert((n, made));
        }
    }
    let (n, made) = first.unwrap();
    println!(
        "recommended at {n} s, crossed at 177 s: {}",
        event(&made)["data"]["reason"]
    );
    assert_eq!(
        (made.kind, made.subject.as_str()),
        ("scale_up", "vm/9b0c6c1e")
    );
    assert!((61..165).contains(&n), "recommended at {n} s");
    assert_eq!(event(&made)["data"]["change"]["vcpus"]["from"], 2);
}

#[test]
fn steady_load_below_the_limit_recommends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut gate = gate(dir.path());
    for n in [30, 60, 120, 240] {
        let all = vec![
            series(vm("h1", 2), Metric::DemandVcpus, n, |_| 1.2),
            series(vm("h1", 2), Metric::ReadyRatio, n, |_| 0.01),
            series(host("h1", 8), Metric::DemandVcpus, n, |_| 4.0),
        ];
        assert_eq!(gate.evaluate(&outlooks(all), at(n)), []);
    }
}

#[test]
fn short_history_recommends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let all = vec![series(vm("h1", 2), Metric::DemandVcpus, 15, |_| 1.9)];
    assert_eq!(gate(dir.path()).evaluate(&outlooks(all), at(15)), []);
}

#[test]
fn a_limit_already_crossed_is_said_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let all = vec![series(host("h1", 4), Metric::DemandVcpus, 60, |_| 5.0)];
    let made = proposed(gate(dir.path()).evaluate(&outlooks(all), at(60)));
    assert_eq!(
        (made[0].kind, made[0].subject.as_str()),
        ("capacity", "host/h1")
    );
    let data = &event(&made[0])["data"];
    assert_eq!(data["lead_time_s"], 0);
    assert!(
        data["reason"].as_str().unwrap().contains("already above"),
        "{data:#}"
    );
    assert_eq!(data["change"]["setting"]["from"], 4);
    assert!(
        data["estimated_effect"]["after"]["waiting_vcpus"].as_f64()
            < data["estimated_effect"]["before"]["waiting_vcpus"].as_f64()
    );
}

#[test]
fn ready_moves_a_vm_only_where_there_is_room() {
    let fleet = |other: f64| {
        vec![
            series(vm("h1", 2), Metric::DemandVcpus, 60, |_| 1.0),
            series(vm("h1", 2), Metric::ReadyRatio, 60, |_| 0.2),
            series(host("h1", 4), Metric::DemandVcpus, 60, |_| 3.0),
            series(host("h2", 4), Metric::DemandVcpus, 60, move |_| other),
        ]
    };
    let dir = tempfile::tempdir().unwrap();
    let made = proposed(gate(dir.path()).evaluate(&outlooks(fleet(1.0)), at(60)));
    assert_eq!(
        (made[0].kind, made[0].subject.as_str()),
        ("migrate", "vm/9b0c6c1e")
    );
    assert_eq!(event(&made[0])["data"]["change"]["to_host"], "h2");
    let made = proposed(gate(dir.path()).evaluate(&outlooks(fleet(3.2)), at(60)));
    assert_eq!(
        (made[0].kind, made[0].subject.as_str()),
        ("capacity", "host/h1")
    );
    assert!(
        event(&made[0])["data"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("etl on h1")
    );
}

#[test]
fn cooldown_holds_across_a_restart_and_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    let all = || {
        outlooks(vec![series(host("h1", 4), Metric::DemandVcpus, 60, |_| {
            5.0
        })])
    };
    let mut first = gate(dir.path());
    assert_eq!(first.evaluate(&all(), at(60)).len(), 1);
    first.save().unwrap();
    assert_eq!(first.evaluate(&all(), at(61)), []);
    let mut second = gate(dir.path());
    assert_eq!(second.evaluate(&all(), at(62)), []);
    assert_eq!(second.evaluate(&all(), at(60) + 901 * SECOND).len(), 1);
}

#[test]
fn a_breach_that_vanishes_is_withdrawn_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut gate = gate(dir.path());
    let busy = outlooks(vec![series(host("h1", 4), Metric::DemandVcpus, 60, |_| {
        5.0
    })]);
    let calm = outlooks(vec![series(host("h1", 4), Metric::DemandVcpus, 60, |_| {
        1.0
    })]);
    let id = proposed(gate.evaluate(&busy, at(60)))[0].id.clone();
    assert_eq!(gate.evaluate(&calm, at(61)), []);
    assert_eq!(gate.evaluate(&[], at(62)), [], "no data is no good news");
    assert!(
        matches!(&gate.evaluate(&calm, at(63))[..], [Decision::Withdraw { id: i, .. }] if *i == id)
    );
    assert_eq!(gate.evaluate(&calm, at(64)), []);
}

#[test]
fn evidence_sql_names_the_very_windows() {
    let dir = tempfile::tempdir().unwrap();
    let all = vec![series(host("h'1", 4), Metric::DemandVcpus, 60, |_| 5.0)];
    let made = proposed(gate(dir.path()).evaluate(&outlooks(all), at(60)));
    let sql = event(&made[0])["data"]["evidence"][0]["sql"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(sql.contains("FROM hosts WHERE host = 'h''1'"), "{sql}");
    assert!(
        sql.contains(&rfc3339(at(57) + SECOND / 2)) && sql.contains(&rfc3339(at(60) + SECOND / 2)),
        "{sql}"
    );
}

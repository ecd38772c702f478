//! Prometheus itself: it scrapes both services, takes remote-write, and finds
//! nothing to complain about in pages and rules.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use headroom_tests::prometheus::{Prometheus, rules};
use headroom_tests::require::{Need, have};
use headroom_tests::up::Up;
use headroom_tests::{output, wait_for, web};

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn rules_are_valid_and_do_what_they_say() {
    if !have("prometheus_rules", &[Need::Prometheus]) {
        return;
    }
    for (what, file) in [
        (&["check", "rules"], "rules.yml"),
        (&["test", "rules"], "rules_test.yml"),
        (&["test", "rules"], "rules_week_test.yml"),
    ] {
        output(Command::new("promtool").args(what).arg(rules(file))).unwrap();
    }
}

#[test]
fn rules_ask_for_what_is_documented() {
    let document = document();
    let text = std::fs::read_to_string(rules("rules.yml")).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours: Vec<&str> = words
        .filter(|w| w.starts_with("headroom_"))
        .map(|w| w.strip_suffix("_bucket").unwrap_or(w))
        .collect();
    assert!(ours.len() > 10, "{ours:?}");
    for name in ours {
        assert!(document.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn prometheus_scrapes_both_and_takes_each_window_once() {
    if !have("prometheus", &[Need::Prometheus]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(&dir.path().join("prometheus")).unwrap();
    let config = format!(
        "[agent]\ninterval = \"1s\"\nattach = \"off\"\n[collector]\n\
         [collector.remote_write]\nurl = \"http://{}/api/v1/write\"\nevery = \"1s\"\n",
        prometheus.address
    );
    let data = dir.path().join("data");
    let up = Up::start(&data, &config, &[]).unwrap();
    let agent = endpoint(&data, "endpoint.metrics");
    let collector = endpoint(&data, "endpoint.http");
    let jobs = [
        ("headroom-agent", agent.as_str()),
        ("headroom-collector", &collector),
    ];
    prometheus.scrape(&jobs).unwrap();
    wait_for("both targets", PATIENCE, || {
        let healthy = prometheus.query("up{job=~\"headroom-.*\"} == 1", None)?;
        ensure!(healthy.len() == 2, "{healthy:?}");
        Ok(())
    })
    .unwrap();
    remote_write_is_exact(&prometheus, &up);
    for address in [&agent, &collector] {
        page_is_good(&web::get(address, "/metrics").unwrap());
    }
    assert_eq!(
        web::get(&collector, "/healthz").unwrap(),
        "{\"status\":\"ok\"}"
    );
    let threads = web::get(
        &collector,
        "/v1/sql?q=SELECT%20max(threads)%20AS%20n%20FROM%20hosts",
    );
    assert!(threads.unwrap().starts_with("[{\"n\":"));
}

/// As many samples as windows, of the same value, up to a time by which both
/// are complete.
fn remote_write_is_exact(prometheus: &Prometheus, up: &Up) {
    let series = "headroom_host_cpu_threads{job=\"headroom\"}";
    let last = wait_for("samples of ten windows", PATIENCE, || {
        let many = format!("count_over_time({series}[10m])");
        let counted = prometheus.query(&many, None)?;
        ensure!(
            counted.first().is_some_and(|(_, n)| *n >= 10.0),
            "{counted:?}"
        );
        let last = prometheus.query(&format!("timestamp({series})"), None)?;
        Ok(last[0].1)
    })
    .unwrap();
    let at = format!("{last:.3}");
    let sent = prometheus
        .query(&format!("count_over_time({series}[10m])"), Some(&at))
        .unwrap();
    let rows = up
        .sql(&format!("SELECT count(*) AS n, max(threads) AS threads, max(host) AS host FROM hosts WHERE ts <= to_timestamp({at})"))
        .unwrap();
    assert_eq!(Some(sent[0].1), rows[0]["n"].as_f64());
    let value = prometheus.query(series, Some(&at)).unwrap();
    assert_eq!(Some(value[0].1), rows[0]["threads"].as_f64());
    assert_eq!(value[0].0["instance"], rows[0]["host"]);
}

fn page_is_good(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let said = promtool.wait_with_output().unwrap();
    assert!(
        said.status.success() && said.stderr.is_empty(),
        "{said:?}\n{page}"
    );
    let document = document();
    let names = page
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next());
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(
            document.contains(&format!("| `{name}` |")),
            "{name} is not in docs/METRICS.md"
        );
    }
}

fn endpoint(data: &Path, name: &str) -> String {
    let read = || Ok(std::fs::read_to_string(data.join(name))?);
    wait_for(name, PATIENCE, read).unwrap().trim().to_owned()
}

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
    std::fs::read_to_string(path).unwrap()
}

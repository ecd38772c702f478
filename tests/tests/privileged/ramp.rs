//! A guest's load ramps: the recommendation comes before the limit is crossed,
//! to a receiver written with other people's libraries.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headroom_tests::guests::Guests;
use headroom_tests::require::{Need, have};
use headroom_tests::up::Up;
use headroom_tests::{python, script, wait_for};
use serde_json::Value;

/// Limit of a VM's demand, as a share of its vCPUs: the default.
const LIMIT: f64 = 0.8;

struct Receiver {
    child: Child,
    port: u16,
}

impl Receiver {
    fn start(secret: &Path, out: &Path) -> Self {
        let schema = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../forecaster/schema/recommendation.schema.json"
        );
        let mut child = Command::new(python())
            .arg(script("receiver.py"))
            .args([secret, Path::new(schema), out])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            port: line.trim().parse().unwrap(),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn messages(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn a_ramp_is_recommended_before_the_limit() {
    if !have("a_ramp", &[Need::Bpf, Need::Kvm, Need::Python]) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let out = dir.path().join("received");
    let receiver = Receiver::start(&data.join("forecaster/webhook.secret"), &out);
    let config = format!(
        "[agent]\ninterval = \"1s\"\n[forecaster]\nevery = \"2s\"\nhorizon = \"90s\"\nmin_history = \"40s\"\n\
         [forecaster.webhook]\nurl = \"http://127.0.0.1:{}/\"\nallow = [\"127.0.0.0/8\"]\n",
        receiver.port
    );
    let up = Up::start(&data, &config, &[]).unwrap();
    let guests = Guests::start(&[
        "--count",
        "1",
        "--name",
        "ramp",
        "--load",
        "10",
        "--ramp-to",
        "100",
        "--for",
        "200s",
    ])
    .unwrap();
    let demand = "SELECT cast(ts AS BIGINT) AS us, cast(run_ns + ready_ns AS double) / window_ns / vcpus AS demand \
                  FROM vms WHERE vm_name = 'ramp1' ORDER BY ts";
    let crossed = wait_for(
        "the ramp to cross the limit",
        Duration::from_secs(230),
        || {
            let rows = up.sql(demand)?;
            let at = rows
                .iter()
                .find(|r| r["demand"].as_f64().is_some_and(|d| d > LIMIT))
                .and_then(|r| r["us"].as_i64());
            at.ok_or_else(|| anyhow::anyhow!("not yet"))
        },
    )
    .unwrap();
    drop(guests);

    let scale_up = first_scale_up(&out);
    let lead = (crossed - received_us(&scale_up)) as f64 / 1e6;
    let data_of = &scale_up["payload"]["data"];
    println!(
        "received {lead:.1} s before the limit; {}",
        data_of["reason"]
    );
    assert!(lead > 0.0, "received {lead} s after the limit was crossed");
    assert!(data_of["lead_time_s"].as_i64().unwrap() > 0);

    // Its evidence is SQL that answers.
    let sql = data_of["evidence"][0]["sql"].as_str().unwrap();
    assert!(!up.sql(sql).unwrap().is_empty(), "{sql}");
    was_delivered(&up, &scale_up["payload"]["id"]);
    let forecasts = up.sql("SELECT count(*) AS n FROM forecasts").unwrap();
    assert!(forecasts[0]["n"].as_i64().unwrap() > 100);
}

/// By the log of states: the latest may be withdrawn, for the guest is gone.
fn was_delivered(up: &Up, id: &Value) {
    let states = "SELECT id, state FROM recommendation_log WHERE kind = 'scale_up'";
    let kept = up.sql(states).unwrap();
    let delivered = |r: &Value| r["id"] == *id && r["state"] == "delivered";
    assert!(kept.iter().any(delivered), "{id} is not among {kept:?}");
}

/// The first recommendation for the VM; every message must have verified and
/// validated.
fn first_scale_up(out: &Path) -> Value {
    let all = messages(out);
    assert!(all.iter().all(|m| m["ok"] == true), "{all:#?}");
    let found = all.iter().find(|m| {
        m["payload"]["data"]["kind"] == "scale_up"
            && m["payload"]["subject"]
                .as_str()
                .is_some_and(|s| s.starts_with("vm/"))
    });
    found
        .unwrap_or_else(|| panic!("no scale_up among {} messages: {all:#?}", all.len()))
        .clone()
}

/// Microseconds since 1970 of the receiver's ISO time, which is in UTC.
fn received_us(message: &Value) -> i64 {
    let text = message["at"].as_str().unwrap();
    let out =
        headroom_tests::output(Command::new("date").args(["-u", "+%s%6N", "-d", text])).unwrap();
    out.trim().parse().unwrap()
}

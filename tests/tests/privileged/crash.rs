//! kill -9 of the collector under load.

use std::time::Duration;

use headroom_tests::guests::Guests;
use headroom_tests::require::{Need, have};
use headroom_tests::up::{self, Up};
use headroom_tests::wait_for;
use rustix::process::{Pid, Signal, kill_process};

const KILLS: usize = 10;

/// Rows, distinct windows, and windows that do not begin where the one before
/// them ended, within half a window (the first of each vCPU does not count).
const WHOLE: &str = "SELECT count(*) AS rows, count(DISTINCT concat(vm_id, '/', vcpu, '/', us)) AS windows, \
     sum(CASE WHEN abs(us - window_ns / 1000 - before) > 500000 THEN 1 ELSE 0 END) AS gaps \
     FROM (SELECT vm_id, vcpu, cast(ts AS BIGINT) AS us, window_ns, \
     lag(cast(ts AS BIGINT)) OVER (PARTITION BY vm_id, vcpu ORDER BY ts) AS before FROM vcpus)";

#[test]
fn ten_killed_collectors_lose_and_double_nothing() {
    if !have("ten_killed_collectors", &[Need::Bpf, Need::Kvm]) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // A flush every two seconds, so that kills also fall into Parquet and Delta.
    let config = "[agent]\ninterval = \"1s\"\n[collector]\nflush = \"2s\"\n";
    let up = Up::start(&data, config, &[]).unwrap();
    let guests = Guests::start(&[
        "--count", "6", "--load", "40", "--for", "300s", "--weight", "100",
    ])
    .unwrap();
    for kill in 0..KILLS {
        // Uneven times: each kill meets another moment of append, flush, commit.
        std::thread::sleep(Duration::from_millis(
            900 + 370 * u64::try_from(kill).unwrap(),
        ));
        let before = rows(&up);
        let pid = up.service("collector").unwrap();
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        let after = wait_for("rows after the kill", Duration::from_secs(30), || {
            anyhow::ensure!(up.service("collector")? != pid, "the dead one");
            let now = up.sql("SELECT count(*) AS n FROM vcpus")?[0]["n"]
                .as_i64()
                .unwrap_or_default();
            anyhow::ensure!(now > before, "{now} rows, {before} before the kill");
            Ok(now)
        })
        .unwrap();
        println!("kill {kill}: {before} rows acked and seen before, {after} after");
    }
    drop(guests);
    assert!(up.stop().unwrap().success());
    let whole = &up::sql(&data, WHOLE).unwrap()[0];
    println!("{whole}");
    assert_eq!(whole["rows"], whole["windows"], "no row twice");
    assert_eq!(whole["gaps"].as_i64(), Some(0), "no row lost");
    assert!(whole["rows"].as_i64().unwrap() > 150);
}

fn rows(up: &Up) -> i64 {
    wait_for("an answer", Duration::from_secs(30), || {
        Ok(up.sql("SELECT count(*) AS n FROM vcpus")?[0]["n"]
            .as_i64()
            .unwrap_or_default())
    })
    .unwrap()
}

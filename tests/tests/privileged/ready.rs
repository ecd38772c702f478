//! Ready of real guests against theory, schedstat and DuckDB.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use headroom_tests::guests::Guests;
use headroom_tests::require::{Need, have};
use headroom_tests::schedstat::{self, Recorder};
use headroom_tests::up::{self, Up};
use headroom_tests::{output, python, script, wait_for};
use serde_json::Value;

const WINDOWS: usize = 10;
const ONE_SECOND: &str = "[agent]\ninterval = \"1s\"\n";

struct Window {
    tid: u32,
    ts: i64,
    window_ns: f64,
    ready_ns: f64,
    run_ns: f64,
    wait_ns: f64,
}

/// The vCPUs' windows later than `after_us`, by VM name.
fn windows(up: &Up, after_us: i64) -> anyhow::Result<BTreeMap<String, Vec<Window>>> {
    let rows = up.sql(&format!(
        "SELECT vm_name, tid, cast(ts AS BIGINT) AS us, window_ns, ready_ns, run_ns, wait_ns FROM vcpus \
         WHERE cast(ts AS BIGINT) > {after_us} AND source <> 'schedstat' ORDER BY ts"
    ))?;
    let mut by_vm: BTreeMap<String, Vec<Window>> = BTreeMap::new();
    for row in rows {
        let number = |key: &str| {
            row[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{key} in {row}"))
        };
        by_vm
            .entry(row["vm_name"].as_str().unwrap_or_default().to_owned())
            .or_default()
            .push(Window {
                tid: u32::try_from(row["tid"].as_i64().unwrap_or_default())?,
                ts: row["us"].as_i64().unwrap_or_default(),
                window_ns: number("window_ns"),
                ready_ns: number("ready_ns"),
                run_ns: number("run_ns"),
                wait_ns: number("wait_ns"),
            });
    }
    Ok(by_vm)
}

/// Waits until every VM has that many windows and gives just those.
fn enough(up: &Up, vms: usize, after_us: i64) -> BTreeMap<String, Vec<Window>> {
    // One question at the end instead of many: they would take CPU time from the
    // guests and make the readings of the agent and of the truth late.
    std::thread::sleep(Duration::from_secs(WINDOWS as u64 + 4));
    wait_for("windows of every VM", Duration::from_secs(60), || {
        let mut seen = windows(up, after_us)?;
        anyhow::ensure!(
            seen.len() == vms && seen.values().all(|w| w.len() >= WINDOWS),
            "not yet"
        );
        seen.values_mut().for_each(|w| w.truncate(WINDOWS));
        Ok(seen)
    })
    .unwrap()
}

fn ready_pct(windows: &[Window]) -> f64 {
    100.0 * windows.iter().map(|w| w.ready_ns).sum::<f64>()
        / windows.iter().map(|w| w.window_ns).sum::<f64>()
}

#[test]
fn four_spinning_guests_on_two_cpus_wait_half_of_the_time() {
    if !have(
        "four_spinning_guests",
        &[Need::Bpf, Need::Kvm, Need::Python],
    ) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let up = Up::start(&data, ONE_SECOND, &[]).unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let count = (2 * cpus).to_string();
    let guests = Guests::start(&["--count", &count, "--load", "100", "--for", "120s"]).unwrap();
    let threads: Vec<(u32, u32)> = guests
        .vms
        .iter()
        .flat_map(|(_, pid)| {
            schedstat::threads(*pid, "CPU ")
                .unwrap()
                .into_iter()
                .map(|(_, tid)| (*pid, tid))
        })
        .collect();
    assert_eq!(threads.len(), guests.vms.len());
    let recorder = Recorder::start(threads);
    // The first window of a guest starts in its middle: begin with whole ones.
    let from = schedstat::now_us() + 2_500_000;
    let seen = enough(&up, guests.vms.len(), from);
    std::thread::sleep(Duration::from_millis(200));
    let record = recorder.stop();
    drop(guests);

    for (name, windows) in &seen {
        let ready = ready_pct(windows);
        // `ts` is the nominal end; the agent reads a little later, the lengths
        // are exact. So the windows' own lengths say where the last one ends.
        let first = &windows[0];
        let begin = first.ts - (first.window_ns / 1e3) as i64;
        let length: f64 = windows.iter().map(|w| w.window_ns).sum();
        let truth = record
            .wait_ns(first.tid, begin, begin + (length / 1e3) as i64)
            .expect("recorded over all windows");
        let measured: f64 = windows.iter().map(|w| w.ready_ns).sum();
        let ratio = measured / truth;
        println!(
            "{name}: ready {ready:.1} %, {:.1} ms against schedstat {:.1} ms: {ratio:.4}",
            measured / 1e6,
            truth / 1e6
        );
        assert!(
            (ready - 50.0).abs() <= 4.0,
            "{name}: ready {ready:.1} %, expected 50 ± 4"
        );
        assert!(
            (ratio - 1.0).abs() <= 0.02,
            "{name}: {ratio:.4} of schedstat, expected 1 ± 0.02"
        );
        for w in windows {
            assert_eq!(
                w.run_ns + w.ready_ns + w.wait_ns,
                w.window_ns,
                "{name}: states sum to the window"
            );
        }
    }
    quantiles_agree_with_duckdb(&data, up);
}

/// p50 and p99 of ready by SQL on the stored rows and by DuckDB on the same Delta
/// table. DataFusion interpolates between two values in steps of 1e-6.
fn quantiles_agree_with_duckdb(data: &std::path::Path, up: Up) {
    let ours = |name: &str, q: &str| format!("{name}(ready_ratio, {q})");
    let ask = |quantile: &dyn Fn(&str) -> String| {
        format!(
            "SELECT vm_name, vcpu, count(*) AS n, sum(ready_ns) AS ready_ns, {} AS p50, {} AS p99 FROM vcpus \
             GROUP BY vm_name, vcpu ORDER BY vm_name, vcpu",
            quantile("0.5"),
            quantile("0.99")
        )
    };
    let sql = ask(&|q| ours("percentile_cont", q));
    assert!(up.stop().unwrap().success());
    let stored = up::sql(data, &sql).unwrap();
    let duck = output(
        Command::new(python())
            .arg(script("duck.py"))
            .arg(data)
            .arg(ask(&|q| ours("quantile_cont", q))),
    )
    .unwrap();
    let duck: Vec<Value> = serde_json::from_str(&duck).unwrap();
    assert!(!stored.is_empty());
    assert_eq!(stored.len(), duck.len());
    for (a, b) in stored.iter().zip(&duck) {
        for key in ["vm_name", "vcpu", "n"] {
            assert_eq!(a[key], b[key], "{a} {b}");
        }
        assert_eq!(
            a["ready_ns"].to_string(),
            b["ready_ns"].to_string().replace('"', "")
        );
        for key in ["p50", "p99"] {
            let (x, y) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
            assert!((x - y).abs() < 1e-6, "{key}: headroom {x}, DuckDB {y}");
        }
    }
}

#[test]
fn one_guest_is_never_ready_and_a_paused_one_neither_runs_nor_waits() {
    if !have("one_guest", &[Need::Bpf, Need::Kvm]) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("data"), ONE_SECOND, &[]).unwrap();
    let guests = Guests::start(&["--count", "1", "--load", "100", "--for", "120s"]).unwrap();
    let name = guests.vms[0].0.clone();
    let seen = enough(&up, 1, schedstat::now_us() + 2_500_000);
    let (ready, run) = (
        ready_pct(&seen[&name]),
        100.0 * seen[&name].iter().map(|w| w.run_ns).sum::<f64>() / 1e10,
    );
    println!("one guest: ready {ready:.2} %, run {run:.1} %");
    assert!(ready < 3.0, "one guest on {} CPUs: ready {ready:.2} %", 2);
    assert!(run > 90.0, "a spinning guest runs: {run:.1} %");

    guests.qmp(&name, "stop").unwrap();
    let seen = enough(&up, 1, schedstat::now_us() + 2_500_000);
    let (ready, run) = (
        ready_pct(&seen[&name]),
        seen[&name].iter().map(|w| w.run_ns).sum::<f64>(),
    );
    println!("paused: ready {ready:.3} %, run {:.3} ms", run / 1e6);
    assert!(ready < 0.1, "a paused guest has ready {ready:.3} %");
    assert!(run < 10e6, "a paused guest ran {run} ns");
}

//! `headroom-agent --print ndjson` as a user runs it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom-agent"));
    command
        .args(["--print", "ndjson", "--interval", "1s"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn prints_whole_windows_and_a_last_one() {
    let output = agent().args(["--for", "2500ms"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    // Without BPF the agent measures all the same and says why.
    assert!(
        said.lines()
            .any(|l| l.starts_with("attached ") || l.starts_with("not attached: ")),
        "{said}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let hosts: Vec<_> = rows.iter().filter(|r| r["table"] == "hosts").collect();
    // At least one at a whole second, and the last.
    assert!(hosts.len() >= 2, "{text}");
    assert!(hosts.iter().all(|r| r["window_ns"].as_i64() > Some(0)));
    assert!(hosts.is_sorted_by_key(|r| r["ts"].as_i64()));
    assert!(
        rows.iter()
            .any(|r| r["table"] == "events" && r["kind"] == "agent_started")
    );
}

#[test]
fn ends_when_nobody_reads_any_more() {
    let mut child = agent().stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"table\":"), "{first}");
    drop(out);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_interval_is_checked_as_the_configuration_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_headroom-agent"))
        .args(["--print", "ndjson", "--interval", "300ms"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("agent.interval"), "{said}");
}

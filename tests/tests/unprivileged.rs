//! What needs no capability: the command's own promises.
#![expect(clippy::unwrap_used, reason = "tests, their helpers too")]

mod unprivileged {
    pub mod prometheus;
}

use std::process::{Command, Output};

use headroom_tests::headroom;

fn run(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(headroom()).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

#[test]
fn printed_configuration_is_valid() {
    let (code, printed, _) = run(&["config", "print"]);
    assert_eq!(code, 0);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headroom.toml");
    std::fs::write(&file, printed).unwrap();
    let (code, out, err) = run(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with(": ok\n"), "{out}");
}

#[test]
fn a_wrong_key_is_named_with_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headroom.toml");
    std::fs::write(&file, "[agent]\ninterval = \"10s\"\nintervall = \"1s\"\n").unwrap();
    for args in [
        &["config", "check", file.to_str().unwrap()][..],
        &["up", "--config", file.to_str().unwrap()][..],
    ] {
        let (code, _, err) = run(args);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("intervall") && err.contains("line 3"), "{err}");
    }
}

#[test]
fn bad_usage_exits_with_2_and_every_command_has_an_example() {
    assert_eq!(run(&["lab", "guests", "--load", "101"]).0, 2);
    assert_eq!(run(&["nonsense"]).0, 2);
    assert_eq!(run(&["up", "--listen", "0.0.0.0:0"]).0, 2);
    for command in [
        &["up"][..],
        &["sql"],
        &["top"],
        &["lab", "guests"],
        &["lab", "oversubscribe"],
        &["lab", "noisy"],
        &["lab", "io-delay"],
        &["lab", "numa"],
        &["lab", "memory"],
        &["lab", "multiqueue"],
        &["lab", "fleet"],
        &["bench", "probes"],
        &["bench", "ingest"],
        &["doctor"],
        &["config", "print"],
    ] {
        let (code, help, _) = run(&[command, &["--help"]].concat());
        assert_eq!(code, 0);
        assert!(help.contains("Example: headroom "), "{command:?}: {help}");
    }
}

#[test]
fn a_collector_killed_under_load_loses_and_doubles_nothing() {
    // Two kills of a debug build: 30 000 rows take some seconds.
    let flags = [
        "--hosts", "4", "--vms", "10", "--rows", "30000", "--kill", "2",
    ];
    let (code, out, err) = run(&[&["bench", "ingest", "-o", "json"], &flags[..]].concat());
    assert_eq!(code, 0, "{err}");
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    assert!(number("acked_rows") >= 30_000.0, "{out}");
    assert_eq!(number("lost_rows"), 0.0, "{out}");
    assert_eq!(number("duplicate_rows"), 0.0, "{out}");
    assert_eq!(number("kills"), 2.0, "{out}");
    for key in [
        "rows_per_core_s",
        "bytes_per_sample",
        "rss_mib",
        "ready_max_ms",
    ] {
        assert!(number(key) > 0.0, "{key}: {out}");
    }
}

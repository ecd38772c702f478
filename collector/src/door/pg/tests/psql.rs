//! psql itself.

use std::path::Path;
use std::process::{Output, Stdio};

use headroom_tests::require;
use tokio::process::Command;

use super::Open;

fn have() -> bool {
    let there = Path::new("/usr/bin/psql").exists();
    if !there {
        require::lacks("psql", "/usr/bin/psql is missing (postgresql-client)");
    }
    there
}

async fn psql(open: &Open, password: &str, arguments: &[&str]) -> Output {
    Command::new("/usr/bin/psql")
        .args(["-X", "-A", "-t", "-w", "-h", "127.0.0.1", "-U", "headroom"])
        .args(["-p", &open.port.to_string()])
        .args(arguments)
        .env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", "60")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

async fn says(open: &Open, command: &str) -> String {
    let output = psql(open, &open.password, &["-c", command]).await;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command}: {out}{err}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_looks_around_and_asks() {
    if !have() {
        return;
    }
    let open = Open::start().await;
    let conninfo = says(&open, "\\conninfo").await;
    assert!(
        conninfo.contains("database \"headroom\" as user \"headroom\""),
        "{conninfo}"
    );
    let tables = says(&open, "\\dt").await;
    for table in ["vms", "vcpus", "block_io", "forecasts"] {
        assert!(
            tables.contains(&format!("public|{table}|table|headroom")),
            "{tables}"
        );
    }
    assert!(!tables.contains("pg_class"), "{tables}");
    let columns = says(&open, "\\d vms").await;
    for column in [
        "ts|timestamp with time zone|",
        "ready_ns|bigint|",
        "vm_name|text|",
        "ready_hist|bytea|",
    ] {
        assert!(columns.contains(column), "{column}: {columns}");
    }
    assert!(says(&open, "\\l").await.contains("headroom"));
    says(&open, "\\dv").await;
    says(&open, "\\dn").await;
    says(&open, "\\du").await;
    let rows = says(
        &open,
        "SELECT vcpu, count(*) FROM vcpus GROUP BY 1 ORDER BY 1",
    )
    .await;
    assert_eq!(rows, "0|10\n1|10\n2|10\n3|10\n");
    let two = says(&open, "SELECT 1; SELECT 'a;b'").await;
    assert_eq!(two, "1\na;b\n");
    assert_eq!(says(&open, "SHOW server_version").await, "16.6\n");
    assert_eq!(
        says(&open, "SELECT current_user, current_database()").await,
        "headroom|headroom\n"
    );
    assert!(
        says(&open, "SELECT version()")
            .await
            .starts_with("PostgreSQL 16.6 (headroom")
    );
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_with_a_wrong_password_is_refused() {
    if !have() {
        return;
    }
    let open = Open::start().await;
    for (password, said) in [
        ("wrong", "authentication failed"),
        ("", "no password supplied"),
    ] {
        let output = psql(&open, password, &["-c", "SELECT 1"]).await;
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(said), "{err}");
        assert!(output.stdout.is_empty());
    }
    open.collector.stop().await;
}

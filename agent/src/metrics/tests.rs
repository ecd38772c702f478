use std::net::{Ipv4Addr, SocketAddr};

use headroom_core::rows::{ProbeRow, VmRow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

fn board() -> Board {
    let labels = Labels {
        host: "here".into(),
        agent_id: "a".into(),
        source: "schedstat".into(),
    };
    Board::new(
        Arc::new(Queue::new(1 << 20)),
        labels,
        Duration::from_secs(10),
    )
}

fn window(run_ns: i64) -> Vec<Chunk> {
    let vm = VmRow {
        host: "here".into(),
        vm_id: "v".into(),
        run_ns,
        ..VmRow::default()
    };
    let probe = |family: &str, state: &str| ProbeRow {
        family: family.into(),
        state: state.into(),
        reason: (state != "attached").then(|| "no \"BPF\"".into()),
        ..ProbeRow::default()
    };
    vec![
        Chunk::of(&[vm]),
        Chunk::of(&[probe("sched", "attached"), probe("irq", "unavailable")]),
    ]
}

#[test]
fn windows_families_and_what_was_missed() {
    let board = board();
    assert!(
        !board.page(Form::Classic).contains("last_window"),
        "none yet"
    );
    board.window(&window(2_000_000_000), Duration::from_secs(100));
    board.window(&window(3_000_000_000), Duration::from_secs(110));
    board.window(&window(0), Duration::from_secs(140));
    let page = board.page(Form::Classic);
    for line in [
        "headroom_vm_run_seconds_total{host=\"here\",vm_id=\"v\"} 5",
        "headroom_agent_windows_total 3",
        "headroom_agent_missed_windows_total 2",
        "headroom_agent_last_window_timestamp_seconds 140",
        "headroom_agent_rows_total 9",
        "headroom_probe_up{host=\"here\",family=\"sched\"} 1",
        "headroom_probe_up{host=\"here\",family=\"irq\",reason=\"no \\\"BPF\\\"\"} 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    board.window(&[], Duration::from_secs(150));
    assert!(
        !board.page(Form::Classic).contains("headroom_vm_"),
        "it is gone"
    );
}

async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    // The answer may come before all of a hostile request is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn it_answers_get_from_here_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let task = start(any, dir.path(), Arc::new(board())).await.unwrap();
    let text = std::fs::read_to_string(dir.path().join("endpoint.metrics")).unwrap();
    let at: SocketAddr = text.trim().parse().unwrap();
    let host = "Host: 127.0.0.1:7070\r\n\r\n";
    let good = ask(at, &format!("GET /metrics HTTP/1.1\r\n{host}")).await;
    assert!(
        good.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
        "{good}"
    );
    assert!(good.contains("process_resident_memory_bytes "), "{good}");
    let open = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n";
    assert!(ask(at, &format!("{open}{host}")).await.ends_with("# EOF\n"));
    for (request, status) in [
        (format!("POST /metrics HTTP/1.1\r\n{host}"), "405"),
        (format!("GET / HTTP/1.1\r\n{host}"), "404"),
        (
            "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(),
            "421",
        ),
        ("GET /metrics HTTP/1.1\r\n\r\n".into(), "421"),
        (
            format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(4096)),
            "400",
        ),
        ("GET /metrics".into(), "408"),
    ] {
        let answer = ask(at, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:.60}: {answer}"
        );
    }
    // More than there is room for, none of which says anything.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    let late = ask(at, &format!("GET /metrics HTTP/1.1\r\n{host}")).await;
    assert!(late.starts_with("HTTP/1.1 200 "), "{late}");
    task.abort();
}

#[tokio::test]
async fn an_address_in_use_is_no_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = taken.local_addr().unwrap();
    assert!(start(at, dir.path(), Arc::new(board())).await.is_none());
}

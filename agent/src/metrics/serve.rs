//! The port that is scraped: one GET a connection, by hand, so that the
//! privileged process carries no web server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headroom_core::exposition::Form;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Board, endpoint};

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 8;
/// Time to send a request.
const READ: Duration = Duration::from_secs(1);
/// Time to take the answer: 1000 VMs are 4 MB.
const WRITE: Duration = Duration::from_secs(5);
/// Longest request; Prometheus sends some 300 bytes.
const MAX_REQUEST: usize = 4096;
/// After a failed accept, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the board until the task is aborted. An address that can't be had
/// is no reason not to measure: it is logged, and there is no task.
pub async fn start(
    address: SocketAddr,
    data_dir: &Path,
    board: Arc<Board>,
) -> Option<JoinHandle<()>> {
    let bound = TcpListener::bind(address)
        .await
        .and_then(|listener| listener.local_addr().map(|at| (listener, at)));
    let (listener, at) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            tracing::warn!(%address, %error, "no metrics: agent.metrics_listen can't be served");
            return None;
        }
    };
    let announced = endpoint::announce(data_dir, at);
    if let Err(error) = &announced {
        tracing::warn!(%error, "address of the metrics not written to the data directory");
    }
    tracing::info!(address = %at, "metrics at /metrics");
    Some(tokio::spawn(async move {
        let _announced = announced;
        accept(listener, at, board).await;
    }))
}

async fn accept(listener: TcpListener, at: SocketAddr, board: Arc<Board>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let board = Arc::clone(&board);
        tokio::spawn(async move {
            answer(stream, at, &board).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, at: SocketAddr, board: &Board) {
    let answer = match timeout(READ, request(&mut stream)).await {
        Ok(Some(request)) => respond(&request, at, board),
        Ok(None) => Answer::error("400 Bad Request", "no request of up to 4 KiB"),
        Err(_) => Answer::error("408 Request Timeout", "the request took over 1 s"),
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    let write = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(answer.body.as_bytes()).await?;
        stream.shutdown().await
    };
    // One that does not read its answer is left alone.
    let _ = timeout(WRITE, write).await;
}

/// The head of a request; `None` if it is none, or too long.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::with_capacity(512);
    let mut part = [0; 512];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let read = stream.read(&mut part).await.ok().filter(|n| *n > 0)?;
        head.extend_from_slice(&part[..read]);
        if head.len() > MAX_REQUEST {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn error(status: &'static str, why: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{why}\n"),
        }
    }
}

fn respond(request: &str, at: SocketAddr, board: &Board) -> Answer {
    let mut lines = request.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next(), first.next().unwrap_or_default());
    let header = |name: &str| {
        let mut fields = request.split("\r\n").filter_map(|l| l.split_once(':'));
        let found = fields.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.trim())
    };
    if at.ip().is_loopback() && !is_local(header("host")) {
        // A foreign page whose name was made to point here.
        return Answer::error(
            "421 Misdirected Request",
            "this port answers on loopback only",
        );
    }
    if method != Some("GET") {
        return Answer::error("405 Method Not Allowed", "GET only");
    }
    match target.split('?').next() {
        Some("/metrics") => {
            let form = Form::accepted(header("accept"));
            Answer {
                status: "200 OK",
                content_type: form.content_type(),
                body: board.page(form),
            }
        }
        _ => Answer::error("404 Not Found", "metrics are at /metrics"),
    }
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.parse::<std::net::Ipv4Addr>();
    matches!(name, "localhost" | "[::1]") || address.is_ok_and(|a| a.is_loopback())
}

//! Clients that mean no good, or are too many.

use std::path::Path;
use std::process::Command;

use headroom_tests::require;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::Open;
use crate::tests::harness::{PATIENCE, raw};

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

fn startup() -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    body.extend_from_slice(b"user\0headroom\0\0");
    framed(None, &body)
}

fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let mut frame: Vec<u8> = kind.into_iter().collect();
    frame.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// What the other side says until it closes.
async fn heard(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut all))
        .await
        .expect("it closes");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_the_login() {
    let open = Open::start().await;
    let query = framed(Some(b'Q'), b"SELECT 4711\0");
    let parse = framed(Some(b'P'), b"\0SELECT 4711\0\0\0");
    let password = framed(Some(b'p'), format!("{}\0", open.password).as_bytes());
    let flawed = framed(Some(b'p'), b"SCRAM-SHA-256\0\0\0\0\x05n,,n=");
    for messages in [
        vec![&query],
        vec![&parse, &query],
        vec![&password, &query],
        vec![&flawed, &query, &query],
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", open.port)).await.unwrap();
        socket.write_all(&startup()).await.unwrap();
        for message in messages {
            let _ = socket.write_all(message).await;
        }
        let _ = socket.shutdown().await;
        let heard = heard(&mut socket).await;
        let asked = heard.windows(13).any(|w| w == b"SCRAM-SHA-256");
        assert!(asked, "{}", String::from_utf8_lossy(&heard));
        assert!(!heard.windows(4).any(|w| w == b"4711"));
    }
    for (user, database) in [("nobody", "headroom"), ("headroom", "postgres")] {
        let mut config = open.config();
        config.user(user).dbname(database);
        let error = config.connect(NoTls).await.map(drop).unwrap_err();
        let expected = [SqlState::INVALID_PASSWORD, SqlState::UNDEFINED_DATABASE];
        // tokio-postgres ends the exchange itself once the proof fails.
        assert!(
            error.code().is_none_or(|c| expected.contains(c)),
            "{error:?}"
        );
    }
    let mode = std::fs::metadata(open.password_file()).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_tls_is_declined_and_large_messages_end() {
    let open = Open::start().await;
    let mut socket = TcpStream::connect(("127.0.0.1", open.port)).await.unwrap();
    socket.write_all(SSL_REQUEST).await.unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"N");
    socket.write_all(&startup()).await.unwrap();
    // 256 MiB announced: it closes long before.
    let mut head = vec![b'p'];
    head.extend((256_u32 << 20).to_be_bytes());
    let _ = socket.write_all(&head).await;
    let piece = vec![0; 64 << 10];
    let mut sent = 0_usize;
    while sent < 256 << 20 && socket.write_all(&piece).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_65th_connection_is_told() {
    let open = Open::start().await;
    let mut clients = Vec::new();
    for _ in 0..super::super::CONNECTIONS {
        clients.push(open.client().await);
    }
    let error = open.config().connect(NoTls).await.map(drop).unwrap_err();
    assert_eq!(
        error.code(),
        Some(&SqlState::TOO_MANY_CONNECTIONS),
        "{error:?}"
    );
    clients.pop();
    tokio::time::timeout(PATIENCE, async {
        while open.config().connect(NoTls).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a place got free");
    open.collector.stop().await;
}

/// Random frames: of every kind, with lengths that fit and that do not.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn frame(&mut self) -> Vec<u8> {
        const KINDS: &[u8] = b"QPBEDHSCXpfdcFR\0\xff";
        let length = self.byte() % 48;
        let body: Vec<u8> = (0..length).map(|_| self.byte() % 128).collect();
        let kind = KINDS[usize::from(self.byte()) % KINDS.len()];
        let mut frame = framed(Some(kind), &body);
        if self.byte() < 8 {
            let at = usize::from(self.byte()) % frame.len();
            frame[at] = self.byte();
        }
        frame
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_random_frames() {
    let open = Open::start().await;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut frames = 0;
    while frames < 10_000 {
        let stream = std::net::TcpStream::connect(("127.0.0.1", open.port)).unwrap();
        stream.set_nonblocking(true).unwrap();
        let raw = stream.try_clone().unwrap();
        let socket = TcpStream::from_std(stream).unwrap();
        let mut raw = TcpStream::from_std(raw).unwrap();
        // Two of three have logged in before.
        let session = match noise.byte() % 3 {
            0 => {
                raw.write_all(&startup()).await.unwrap();
                None
            }
            _ => Some(open.config().connect_raw(socket, NoTls).await.unwrap()),
        };
        for _ in 0..200 {
            if raw.write_all(&noise.frame()).await.is_err() {
                break;
            }
            frames += 1;
        }
        drop(session);
    }
    let client = open.client().await;
    let row = client
        .query_one("SELECT count(*) FROM vcpus", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 40);
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_only_tls_is_spoken() {
    let tools = ["/usr/bin/psql", "/usr/bin/openssl"];
    if let Some(missing) = tools.iter().find(|t| !Path::new(t).exists()) {
        return require::lacks("psql", format_args!("{missing} is missing"));
    }
    let made = tempfile::tempdir().unwrap();
    let pair = |name: &str| {
        let file = |end: &str| made.path().join(format!("{name}.{end}"));
        let (cert, key) = (file("crt"), file("key"));
        let done = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-out"])
            .arg(&cert)
            .arg("-keyout")
            .arg(&key)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        (cert, key)
    };
    let ((cert, key), (_, other)) = (pair("one"), pair("other"));
    let mut broken = raw(made.path());
    broken.pg_listen = "127.0.0.1:0".into();
    (broken.pg_cert, broken.pg_key) = (cert.clone(), other);
    let error = broken.validate().unwrap_err().to_string();
    assert!(error.starts_with("collector.pg_key: "), "{error}");
    let open = Open::with(|c| (c.pg_cert, c.pg_key) = (cert, key)).await;
    let psql = async |mode: &str| {
        tokio::process::Command::new("/usr/bin/psql")
            .args(["-X", "-A", "-t", "-w", "-c", "SELECT 4711"])
            .arg(format!(
                "host=127.0.0.1 port={} user=headroom sslmode={mode}",
                open.port
            ))
            .env("PGPASSWORD", &open.password)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    };
    let over_tls = psql("require").await;
    assert_eq!(
        String::from_utf8_lossy(&over_tls.stdout),
        "4711\n",
        "{over_tls:?}"
    );
    let plain = psql("disable").await;
    assert_eq!(plain.status.code(), Some(2), "{plain:?}");
    assert!(
        String::from_utf8_lossy(&plain.stderr).contains("TLS only"),
        "{plain:?}"
    );
    open.collector.stop().await;
}

/// Texts that keep the parser busy for ever, or its tree deeper than a stack:
/// refused by the port itself, and the connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_nests_too_deeply_is_refused_at_once() {
    let open = Open::start().await;
    let client = open.client().await;
    for text in [
        format!("SELECT {}1", "CAST(".repeat(40)),
        format!("SELECT {}1{}", "f(".repeat(40), ")".repeat(40)),
        format!("SELECT 1{}", " OR 1".repeat(100_000)),
        format!("SELECT 1{}", " OR 1".repeat(15_000)),
    ] {
        let simple = tokio::time::timeout(PATIENCE, client.simple_query(&text));
        assert!(simple.await.expect("an answer").is_err());
        let extended = tokio::time::timeout(PATIENCE, client.prepare(&text));
        assert!(extended.await.expect("an answer").is_err());
        assert!(client.simple_query("SELECT 1").await.is_ok());
    }
}

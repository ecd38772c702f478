//! Plain HTTP on this host.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Longest answer that is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Body of `GET http://ADDRESS/PATH`.
///
/// # Errors
/// Nobody answers, or with another status than 200.
pub fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(LIMIT))?;
    // 1.0: no chunks, and the connection ends with the answer.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "GET {path}: {status}: {body}");
    Ok(body.to_owned())
}

/// A text as it stands in a URL's query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

//! An HTTP/1.1 receiver: answers as told and records what came.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Debug)]
pub struct Request {
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(n, _)| n == name).expect(name).1
    }
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Status line and headers of the next answers; then 204.
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Receiver {
    pub async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = answers.iter().map(|a| (*a).to_owned()).collect();
        let address = listener.local_addr().unwrap();
        let this = Self {
            address,
            requests: Arc::default(),
            answers: Arc::new(Mutex::new(answers)),
        };
        let server = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        this
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until that many requests came, at most a minute.
    pub async fn wait_for(&self, count: usize) -> Vec<Request> {
        for _ in 0..6000 {
            if self.requests().len() >= count {
                return self.requests();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} requests came", self.requests().len());
    }

    async fn answer(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let (head, length) = loop {
            let mut part = [0_u8; 4096];
            let n = stream.read(&mut part).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            bytes.extend_from_slice(&part[..n]);
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let length = head.lines().find_map(|l| {
                    l.to_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                });
                break (head, (end + 4) + length.unwrap().parse::<usize>().unwrap());
            }
        };
        while bytes.len() < length {
            let mut part = [0_u8; 4096];
            let n = stream.read(&mut part).await.unwrap();
            bytes.extend_from_slice(&part[..n]);
        }
        let body = String::from_utf8(bytes[head.len() + 4..].to_vec()).unwrap();
        let fields = head.lines().skip(1).filter_map(|l| l.split_once(": "));
        let headers = fields
            .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
            .collect();
        let answer = self
            .answers
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or_else(|| "204 No Content".into());
        self.requests
            .lock()
            .unwrap()
            .push(Request { headers, body });
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        drop(stream.write_all(answer.as_bytes()).await);
    }
}

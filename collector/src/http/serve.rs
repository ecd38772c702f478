//! Connections, bounded in number and in the time they may idle.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// Time to send the head of a request, also of the next one.
const HEAD: Duration = Duration::from_secs(10);
/// Longest wait for open requests at the end.
const DRAIN: Duration = Duration::from_secs(3);
/// After a failed accept, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then lets open requests end for up to 3 s.
pub async fn serve(listener: TcpListener, routes: Router, mut stopping: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    let told = stopping.clone();
    loop {
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = stopped(&mut stopping) => break,
            accepted = accept => match accepted {
                (Ok(permit), Ok((stream, _))) => {
                    let connection = connection(stream, routes.clone(), told.clone());
                    open.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                _ => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::info!("http requests still open at the end, closing them");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error: the one who would tell is gone, which says the same.
    let _ = stopping.wait_for(|s| *s).await;
}

async fn connection(stream: TcpStream, routes: Router, mut stopping: watch::Receiver<bool>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let service = TowerToHyperService::new(routes);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "http connection broke off");
    }
}

//! The HTTP door: SQL for whoever speaks no gRPC, and what operators watch.
//!
//! **Invariant:** read only, without login, so on loopback a request with a
//! foreign `Host` (DNS rebinding) is refused. No answer is ever held whole.

mod encode;
mod serve;
mod sql;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde_json::json;

pub use serve::serve;

use crate::ingest::Counters;
use crate::metrics::{Doors, Sent};
use crate::query::QueryEngine;
use crate::store::Store;

/// What the requests need. Not the ingest: it ends when nobody holds it.
pub struct Door {
    /// Who answers SQL.
    pub engine: Arc<QueryEngine>,
    /// The rows.
    pub store: Arc<Store>,
    /// Size of the log, bytes.
    pub log_bytes: Arc<AtomicU64>,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Queries by door and outcome.
    pub doors: Arc<Doors>,
    /// What remote-write did; `None` when it is off.
    pub sent: Option<Arc<Sent>>,
    /// Corrupt parts of the log set aside at the start.
    pub log_quarantined: u64,
    /// Start of the collector, s since 1970 UTC.
    pub started: f64,
}

/// The routes, for a listener at that address.
pub fn router(door: Arc<Door>, at: SocketAddr) -> Router {
    let routes = Router::new()
        .route("/v1/sql", get(sql::get).post(sql::post))
        .route("/v1/status", get(watch::status))
        .route("/healthz", get(watch::health))
        .route("/metrics", get(watch::metrics))
        .fallback(|| async {
            error(
                StatusCode::NOT_FOUND,
                "there is /v1/sql, /v1/status, /healthz and /metrics",
            )
        })
        .with_state(door);
    if at.ip().is_loopback() {
        routes.layer(middleware::from_fn(only_local))
    } else {
        routes
    }
}

/// An error as every request gets it.
fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// A browser names the host it believes to talk to.
async fn only_local(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.parse::<Ipv4Addr>();
    if matches!(name, "localhost" | "[::1]") || address.is_ok_and(|a| a.is_loopback()) {
        return next.run(request).await;
    }
    error(
        StatusCode::MISDIRECTED_REQUEST,
        "this port answers on loopback only",
    )
}

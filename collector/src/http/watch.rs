//! `/metrics`, `/healthz` and `/v1/status`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headroom_core::exposition::Form;
use headroom_core::metric::SCHEMA_VERSION;
use serde_json::{Value, json};

use super::{Door, error};
use crate::metrics;

/// The page that Prometheus scrapes.
pub async fn metrics(State(door): State<Arc<Door>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let form = Form::accepted(accept.unwrap_or_default());
    (
        [(header::CONTENT_TYPE, form.content_type())],
        metrics::page(&door, form),
    )
}

/// 200 while batches are taken, else 503 with the reason.
pub async fn health(State(door): State<Arc<Door>>) -> Response {
    let reason = door.counters.refusing();
    if reason.is_empty() {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        error(StatusCode::SERVICE_UNAVAILABLE, &reason)
    }
}

/// The state of the collector in a few numbers.
pub async fn status(State(door): State<Arc<Door>>) -> Json<Value> {
    let snapshot = door.store.snapshot();
    let (hot_rows, hot_bytes) = snapshot.hot();
    let counters = &door.counters;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "schema_version": SCHEMA_VERSION,
        "acked_rows": counters.acked_rows.load(Relaxed),
        "duplicate_batches": counters.duplicate_batches.load(Relaxed),
        "hot_rows": hot_rows,
        "hot_bytes": hot_bytes,
        "log_bytes": door.log_bytes.load(Relaxed),
        "files": snapshot.files(),
        "quarantined": door.log_quarantined + door.store.quarantined(),
        "agents": counters.senders.list().len(),
        "refusing": Some(counters.refusing()).filter(|r| !r.is_empty()),
    }))
}

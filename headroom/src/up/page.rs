//! The page and its few JSON answers.
//!
//! **Invariant:** loopback only, read only; a request with a foreign `Host`
//! (DNS rebinding) is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{Query, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use headroom_collector::client::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::receiver::Receiver;
use crate::output::{self, Format};

const PAGE: &str = include_str!("../../page/index.html");

/// Latest window of each host in the last minutes.
const HOSTS: &str = "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY host ORDER BY ts DESC) AS n \
     FROM hosts WHERE ts > now() - INTERVAL '10 minutes') WHERE n = 1 ORDER BY host";
const VMS: &str = "SELECT * FROM (SELECT ts, host, vm_id, vm_name, vcpus, window_ns, run_ns, ready_ns, ready_ratio, \
     ready_max_ratio, hist_quantile(ready_hist, 0.99) AS wait_p99_ns, platform, source, \
     row_number() OVER (PARTITION BY vm_id, host ORDER BY ts DESC) AS n \
     FROM vms WHERE ts > now() - INTERVAL '10 minutes') WHERE n = 1 ORDER BY ready_max_ratio DESC, vm_name LIMIT 500";
const RECOMMENDATIONS: &str = "SELECT id, made_at, kind, subject, confidence, state, payload FROM recommendations \
     ORDER BY made_at DESC LIMIT 20";

/// What every request needs.
#[derive(Clone)]
pub struct State {
    data_dir: PathBuf,
    client: Arc<Mutex<Option<Client>>>,
    receiver: Arc<std::sync::Mutex<Receiver>>,
}

impl State {
    /// For the collector that runs on that directory.
    pub fn new(data_dir: &Path) -> Self {
        let receiver = Arc::new(std::sync::Mutex::new(Receiver::open(data_dir)));
        Self {
            data_dir: data_dir.to_owned(),
            client: Arc::default(),
            receiver,
        }
    }

    async fn ask(&self, sql: &str) -> anyhow::Result<Value> {
        let client = self.client().await?;
        match client.sql(sql).await {
            Ok((schema, batches)) => Ok(serde_json::from_slice(&output::render(
                &schema,
                &batches,
                Format::Json,
            )?)?),
            Err(error) => {
                // Connect anew next time: the collector may have restarted.
                *self.client.lock().await = None;
                Err(error.into())
            }
        }
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let mut client = self.client.lock().await;
        if client.is_none() {
            *client = crate::sql::live(&self.data_dir).await;
        }
        client.clone().context("the collector does not answer")
    }

    fn receiver(&self) -> std::sync::MutexGuard<'_, Receiver> {
        self.receiver
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Serves until the listener fails.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: tokio::net::TcpListener, state: State) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/", get(index))
        .route("/api/overview", get(overview))
        .route("/api/series", get(series))
        .route("/healthz", get(|| async { "ok" }))
        .route("/hooks/recommendations", post(receive))
        .layer(middleware::from_fn(only_loopback))
        .with_state(state);
    axum::serve(listener, router)
        .await
        .context("serve the page")
}

/// A browser names the host it believes to talk to: a foreign page that made
/// its name point at 127.0.0.1 is told apart by that.
async fn only_loopback(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if matches!(name, "localhost" | "[::1]")
        || name
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|a| a.is_loopback())
    {
        return next.run(request).await;
    }
    (
        StatusCode::MISDIRECTED_REQUEST,
        "this page answers on loopback only",
    )
        .into_response()
}

async fn index() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, policy),
        ],
        PAGE,
    )
}

async fn overview(Shared(state): Shared<State>) -> Result<Json<Value>, Failure> {
    let status = state.client().await?.status().await?;
    let received = state.receiver().messages().to_vec();
    Ok(Json(json!({
        "hosts": state.ask(HOSTS).await?,
        "vms": state.ask(VMS).await?,
        "recommendations": state.ask(RECOMMENDATIONS).await?,
        "received": received,
        "status": {
            "version": status.version, "acked_rows": status.acked_rows, "hot_rows": status.hot_rows,
            "files": status.files, "log_bytes": status.log_bytes, "refusing": status.refusing,
            "duplicate_batches": status.duplicate_batches, "quarantined": status.quarantined,
        },
    })))
}

#[derive(Deserialize)]
struct SeriesOf {
    /// `vm/ID` or `host/NAME`.
    subject: String,
}

/// The last hour of a VM or host, and its latest forecasts.
async fn series(
    Shared(state): Shared<State>,
    Query(of): Query<SeriesOf>,
) -> Result<Json<Value>, Failure> {
    let subject = of.subject.replace('\'', "''");
    let recent = "ts > now() - INTERVAL '1 hour' ORDER BY ts";
    let history = match subject.split_once('/') {
        Some(("vm", id)) => format!(
            "SELECT ts, ready_ratio, cast(run_ns + ready_ns AS double) / window_ns AS demand_vcpus \
             FROM vms WHERE vm_id = '{id}' AND {recent}"
        ),
        Some(("host", name)) => format!(
            "SELECT ts, cast(vm_ready_ns AS double) / window_ns / CASE WHEN vcpus = 0 THEN 1 ELSE vcpus END AS ready_ratio, \
             cast(coalesce(busy_ns, vm_run_ns) + vm_ready_ns AS double) / window_ns AS demand_vcpus \
             FROM hosts WHERE host = '{name}' AND {recent}"
        ),
        _ => return Err(anyhow::anyhow!("subject must be vm/ID or host/NAME").into()),
    };
    let forecast = format!(
        "SELECT ts, metric, p05, p10, p50, p90, p95, model, skill, made_at FROM forecasts f \
         WHERE subject = '{subject}' AND made_at = (SELECT max(made_at) FROM forecasts WHERE subject = '{subject}') \
         ORDER BY metric, ts"
    );
    Ok(Json(
        json!({ "history": state.ask(&history).await?, "forecast": state.ask(&forecast).await? }),
    ))
}

async fn receive(Shared(state): Shared<State>, headers: HeaderMap, body: Bytes) -> StatusCode {
    // The file is fsynced: off the async threads.
    tokio::task::spawn_blocking(move || state.receiver().take(&headers, &body))
        .await
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An answer that could not be made: 503 with the reason.
struct Failure(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "error": format!("{:#}", self.0) })),
        )
            .into_response()
    }
}

//! The HTTP door's part of the process.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::endpoint::{self, Endpoint};
use crate::Error;
use crate::config::Config;
use crate::http::{self, Door};

/// A door that is open.
pub struct Web {
    task: JoinHandle<()>,
    _endpoint: Endpoint,
}

impl Web {
    /// Opens it, if the configuration has one, until `stopping`.
    ///
    /// # Errors
    /// Its address can't be served or announced.
    pub async fn start(
        config: &Config,
        door: Door,
        stopping: watch::Receiver<bool>,
    ) -> Result<Option<Self>, Error> {
        let Some(address) = config.http_listen else {
            return Ok(None);
        };
        let (listener, at) = super::listen("http_listen", address).await?;
        let endpoint = endpoint::announce(&config.data_dir, "endpoint.http", at)?;
        let routes = http::router(Arc::new(door), at);
        tracing::info!(address = %at, "http: /v1/sql and /metrics");
        Ok(Some(Self {
            task: tokio::spawn(http::serve(listener, routes, stopping)),
            _endpoint: endpoint,
        }))
    }

    /// Waits for its end.
    pub async fn ended(self) {
        let _ = self.task.await;
    }
}

//! The PostgreSQL port's part of the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::endpoint::{self, Endpoint};
use crate::Error;
use crate::config::Config;
use crate::door::Pg;
use crate::query::QueryEngine;

/// The port, with its address but not served yet.
pub struct Psql {
    pg: Pg,
    timeout: Duration,
    endpoint: Endpoint,
}

/// The port while it is served.
pub struct Serving {
    task: JoinHandle<()>,
    _endpoint: Endpoint,
}

impl Psql {
    /// Takes the address, if the configuration has one, and announces it.
    ///
    /// # Errors
    /// The address is taken, or password or certificate can't be used.
    pub async fn open(config: &Config) -> Result<Option<Self>, Error> {
        let Some(pg) = &config.pg else {
            return Ok(None);
        };
        let pg = Pg::open(pg, &config.data_dir).await?;
        let endpoint = endpoint::announce(&config.data_dir, "endpoint.pg", pg.address())?;
        Ok(Some(Self {
            pg,
            timeout: config.query_timeout,
            endpoint,
        }))
    }

    /// Serves it until `stopping`.
    pub fn serve(self, engine: Arc<QueryEngine>, stopping: watch::Receiver<bool>) -> Serving {
        Serving {
            task: self.pg.serve(engine, self.timeout, stopping),
            _endpoint: self.endpoint,
        }
    }
}

impl Serving {
    /// Waits for its end, as long as open streams may take.
    pub async fn ended(self) {
        let _ = tokio::time::timeout(super::DRAIN, self.task).await;
    }
}

//! The PostgreSQL protocol: for psql, drivers and Grafana.
//!
//! **Invariant:** nobody is answered before SCRAM-SHA-256 went well, and no
//! statement reaches the engine but through [`crate::query::QueryEngine::sql`].

mod answer;
mod connection;
mod error;
mod gauge;
mod handler;
mod parameters;
mod password;
mod session;
mod startup;
pub mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgwire::api::ConnectionManager;
use pgwire::api::auth::sasl::scram::ScramAuth;
use pgwire::api::{PidSecretKeyGenerator, RandomPidSecretKeyGenerator};
use pgwire::tokio::TlsAcceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::Error;
use crate::config;
use crate::query::QueryEngine;
use password::Secret;

/// The one user, and the one database.
pub const NAME: &str = "headroom";
/// Connections at the same time; each takes about 30 KiB while idle.
const CONNECTIONS: usize = 64;
/// Further ones that are told so; beyond that they are closed unheard.
const REFUSALS: usize = 64;
/// Pause after `accept` failed, as when no file descriptors are left.
const BREATH: Duration = Duration::from_millis(100);

/// The port, open but not served yet.
pub struct Pg {
    listener: TcpListener,
    address: SocketAddr,
    secret: Arc<Secret>,
    tls: Option<TlsAcceptor>,
}

/// What all connections share.
struct Shared {
    engine: Arc<QueryEngine>,
    query_timeout: Duration,
    secret: Arc<Secret>,
    tls: Option<TlsAcceptor>,
    cancels: Arc<ConnectionManager>,
    keys: Arc<dyn PidSecretKeyGenerator>,
    stopping: watch::Receiver<bool>,
}

impl Pg {
    /// Takes the port, the password and the certificate.
    ///
    /// # Errors
    /// One of them can't be had; names the key.
    pub async fn open(config: &config::Pg, data_dir: &Path) -> Result<Self, Error> {
        let tls = match &config.tls {
            None => None,
            Some((cert, key)) => Some(
                tls::load(cert, key).map_err(|(key, problem)| Error::Config { key, problem })?,
            ),
        };
        let secret = Arc::new(password::read(config.password_file.as_deref(), data_dir)?);
        let listener = super::listen("pg_listen", config.listen).await?;
        let address = listener.local_addr().map_err(|source| Error::Listen {
            key: "pg_listen",
            address: config.listen,
            source,
        })?;
        Ok(Self {
            listener,
            address,
            secret,
            tls,
        })
    }

    /// The real address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopping` turns true; every connection has ended when the
    /// task has.
    pub fn serve(
        self,
        engine: Arc<QueryEngine>,
        query_timeout: Duration,
        stopping: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let shared = Arc::new(Shared {
            engine,
            query_timeout,
            secret: self.secret,
            tls: self.tls,
            cancels: Arc::new(ConnectionManager::new()),
            keys: Arc::new(RandomPidSecretKeyGenerator::default()),
            stopping,
        });
        tokio::spawn(accept(self.listener, shared))
    }
}

impl Shared {
    fn scram(&self) -> ScramAuth {
        let mut scram = ScramAuth::new(Arc::clone(&self.secret) as _);
        scram.set_iterations(password::ITERATIONS);
        scram
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut stopping = shared.stopping.clone();
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            _ = stopping.wait_for(|s| *s) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => start(socket, from, &shared, (&places, &refusals), &mut open),
            Err(error) => {
                tracing::warn!(%error, "can't accept a PostgreSQL connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    // Each sees the same stop.
    while open.join_next().await.is_some() {}
}

fn start(
    socket: TcpStream,
    from: SocketAddr,
    shared: &Arc<Shared>,
    (places, refusals): (&Arc<Semaphore>, &Arc<Semaphore>),
    open: &mut JoinSet<()>,
) {
    let place = Arc::clone(places).try_acquire_owned().ok();
    let refusal: Option<OwnedSemaphorePermit> = match place {
        Some(_) => None,
        None => match Arc::clone(refusals).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => return,
        },
    };
    let shared = Arc::clone(shared);
    open.spawn(async move {
        let _refusal = refusal;
        if let Err(error) = connection::run(socket, &shared, place).await {
            tracing::debug!(%from, %error, "PostgreSQL connection ended");
        }
    });
}

#[cfg(test)]
mod tests;

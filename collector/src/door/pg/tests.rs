//! The port, spoken to by clients that others wrote.

mod drivers;
mod hostile;
mod psql;

use std::path::PathBuf;

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use crate::config::Raw;
use crate::tests::harness::{Collector, batches, raw};

/// A collector with rows and an open port.
pub struct Open {
    pub dir: TempDir,
    pub port: u16,
    pub password: String,
    pub collector: Collector,
}

impl Open {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Raw)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Raw {
            pg_listen: "127.0.0.1:0".into(),
            ..raw(dir.path())
        };
        change(&mut config);
        let collector = Collector::start(config).await;
        let mut sender = collector.sender().await;
        sender.push_all(&batches("a", 1..=10, 4)).await;
        let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let address = file("endpoint.pg");
        let port = address.trim().rsplit_once(':').unwrap().1.parse().unwrap();
        let password = file("pg.password").trim().to_owned();
        Self {
            dir,
            port,
            password,
            collector,
        }
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user("headroom")
            .password(&self.password);
        config
    }

    pub async fn client(&self) -> Client {
        let (client, connection) = self.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub fn password_file(&self) -> PathBuf {
        self.dir.path().join("pg.password")
    }
}

//! Section `[collector]` of the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use headroom_core::units::{UnitError, parse_duration, parse_size};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::store::Keep;

/// Address served when none is configured.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7071";
/// Address of the PostgreSQL port when none is configured.
pub const DEFAULT_PG_LISTEN: &str = "127.0.0.1:5433";
/// Address of the HTTP door when none is configured.
pub const DEFAULT_HTTP_LISTEN: &str = "127.0.0.1:7072";
/// Time between two requests of remote-write.
pub const DEFAULT_REMOTE_WRITE_EVERY: &str = "15s";
/// Directory of the data when none is configured.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/headroom";
/// Age at which rows in memory go to Parquet.
pub const DEFAULT_FLUSH: &str = "10m";
/// Bytes of rows in memory that go to Parquet before their time.
pub const DEFAULT_FLUSH_SIZE: &str = "64 MiB";
/// Bytes after which a new segment of the write-ahead log begins.
pub const DEFAULT_SEGMENT_SIZE: &str = "128 MiB";
/// Longest wait of a batch for others to share its `fdatasync`.
pub const DEFAULT_GROUP_COMMIT: &str = "200ms";
/// Bytes of batches that are synced at once without waiting longer.
pub const DEFAULT_GROUP_BYTES: &str = "1 MiB";
/// Bytes of rows in memory at which batches are refused.
pub const DEFAULT_HOT_LIMIT: &str = "512 MiB";
/// How long rows are kept as they were sent.
pub const DEFAULT_KEEP: &str = "7d";
/// How long roll-ups are kept.
pub const DEFAULT_KEEP_ROLLUPS: &str = "365d";
/// Memory of all running queries together.
pub const DEFAULT_QUERY_MEMORY: &str = "512 MiB";
/// Processes that run queries.
pub const DEFAULT_QUERY_CHILDREN: u32 = 2;
/// Longest run time of one query.
pub const DEFAULT_QUERY_TIMEOUT: &str = "30s";

/// The section as it stands in the file, in human units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Address and port of the gRPC service; port 0 takes any free one.
    pub listen: String,
    /// Address and port of the PostgreSQL protocol; port 0 takes any free one,
    /// an empty text none.
    pub pg_listen: String,
    /// File with the password of user `headroom`; empty: `pg.password` in
    /// `data_dir`, made at the first start.
    pub pg_password_file: PathBuf,
    /// PEM file of the PostgreSQL port's certificate chain; empty: no TLS.
    pub pg_cert: PathBuf,
    /// PEM file of its private key.
    pub pg_key: PathBuf,
    /// Address and port of SQL over HTTP and of `/metrics`; empty: none.
    pub http_listen: String,
    /// Directory that holds the log and the tables.
    pub data_dir: PathBuf,
    /// Whether `listen` and `http_listen` may be others than loopback addresses
    /// (there is no TLS yet: everyone who reaches the port may write and read),
    /// and `pg_listen`, if it has TLS.
    pub allow_remote: bool,
    /// Age at which rows in memory go to Parquet.
    pub flush: String,
    /// Bytes of rows in memory that go to Parquet before their time.
    pub flush_size: String,
    /// Bytes after which a new segment of the write-ahead log begins.
    pub segment_size: String,
    /// Longest wait of a batch for others to share its `fdatasync`.
    pub group_commit: String,
    /// Bytes of batches that are synced at once without waiting longer.
    pub group_bytes: String,
    /// Bytes of rows in memory at which batches are refused.
    pub hot_limit: String,
    /// How long rows are kept as they were sent.
    pub keep: String,
    /// How long roll-ups are kept, and the tables of few rows with them.
    pub keep_rollups: String,
    /// Memory of all running queries together.
    pub query_memory: String,
    /// Processes that run queries, one query each; `query_memory` is shared
    /// among them.
    pub query_children: u32,
    /// Longest run time of one query.
    pub query_timeout: String,
    /// Where the series of VMs and hosts are sent.
    pub remote_write: RemoteWriteRaw,
}

/// Section `[collector.remote_write]` as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteWriteRaw {
    /// URL of a receiver of Prometheus remote-write 1.0; empty: none.
    pub url: String,
    /// Time between two requests.
    pub every: String,
    /// A file with the bearer token; empty: none.
    pub token_file: String,
}

impl Default for RemoteWriteRaw {
    fn default() -> Self {
        Self {
            url: String::new(),
            every: DEFAULT_REMOTE_WRITE_EVERY.into(),
            token_file: String::new(),
        }
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN.into(),
            pg_listen: DEFAULT_PG_LISTEN.into(),
            pg_password_file: PathBuf::new(),
            pg_cert: PathBuf::new(),
            pg_key: PathBuf::new(),
            http_listen: DEFAULT_HTTP_LISTEN.into(),
            data_dir: DEFAULT_DATA_DIR.into(),
            allow_remote: false,
            flush: DEFAULT_FLUSH.into(),
            flush_size: DEFAULT_FLUSH_SIZE.into(),
            segment_size: DEFAULT_SEGMENT_SIZE.into(),
            group_commit: DEFAULT_GROUP_COMMIT.into(),
            group_bytes: DEFAULT_GROUP_BYTES.into(),
            hot_limit: DEFAULT_HOT_LIMIT.into(),
            keep: DEFAULT_KEEP.into(),
            keep_rollups: DEFAULT_KEEP_ROLLUPS.into(),
            query_memory: DEFAULT_QUERY_MEMORY.into(),
            query_children: DEFAULT_QUERY_CHILDREN,
            query_timeout: DEFAULT_QUERY_TIMEOUT.into(),
            remote_write: RemoteWriteRaw::default(),
        }
    }
}

/// The section after validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address and port of the gRPC service.
    pub listen: SocketAddr,
    /// The PostgreSQL port; `None`: off.
    pub pg: Option<Pg>,
    /// Address and port of the HTTP door.
    pub http_listen: Option<SocketAddr>,
    /// Directory that holds the log and the tables.
    pub data_dir: PathBuf,
    /// Age at which rows in memory go to Parquet.
    pub flush: Duration,
    /// Bytes of rows in memory that go to Parquet before their time.
    pub flush_size: u64,
    /// Bytes after which a new segment of the write-ahead log begins.
    pub segment_size: u64,
    /// Longest wait of a batch for others to share its `fdatasync`.
    pub group_commit: Duration,
    /// Bytes of batches that are synced at once without waiting longer.
    pub group_bytes: u64,
    /// Bytes of rows in memory at which batches are refused.
    pub hot_limit: u64,
    /// How long rows are kept.
    pub keep: Keep,
    /// Memory of all running queries together, bytes.
    pub query_memory: u64,
    /// Processes that run queries.
    pub query_children: usize,
    /// What this program is started with again to be one of them, set by the
    /// program; `None`: queries run on threads of the collector, which no text
    /// from outside may reach.
    pub query_program: Option<Vec<String>>,
    /// Longest run time of one query.
    pub query_timeout: Duration,
    /// Where the series of VMs and hosts are sent.
    pub remote_write: Option<RemoteWrite>,
}

/// Section `[collector.remote_write]`, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWrite {
    /// URL of the receiver.
    pub url: Url,
    /// Time between two requests.
    pub every: Duration,
    /// A file with the bearer token.
    pub token_file: Option<PathBuf>,
}

/// The PostgreSQL port after validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pg {
    /// Address and port.
    pub listen: SocketAddr,
    /// File with the password; `None`: the one in the data directory.
    pub password_file: Option<PathBuf>,
    /// PEM files of certificate chain and key, which were read once.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A key of the section that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No duration or size.
    #[error("collector.{key}: {problem}")]
    Unit {
        /// Name of the key.
        key: &'static str,
        /// What is wrong and how to write it.
        problem: UnitError,
    },
    /// Not an address.
    #[error("collector.{key}: {text:?} is no address; write it like \"127.0.0.1:7071\"")]
    Listen {
        /// Name of the key.
        key: &'static str,
        /// What stands there.
        text: String,
    },
    /// An address that others reach.
    #[error(
        "collector.{key}: {address} is no loopback address and the port has no TLS; use 127.0.0.1, or set allow_remote = true on a network you trust"
    )]
    Remote {
        /// Name of the key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The PostgreSQL port can't be opened as asked.
    #[error("collector.{key}: {problem}")]
    Pg {
        /// Name of the key.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A value out of its range.
    #[error("collector.{key}: {problem}")]
    Range {
        /// Name of the key.
        key: &'static str,
        /// What is wrong and what to do.
        problem: &'static str,
    },
}

impl Raw {
    /// Checks every key and reads the units.
    ///
    /// # Errors
    /// Names the first key that can't be used, and the remedy.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let listen = address("listen", &self.listen, self.allow_remote)?;
        let http_listen = match self.http_listen.as_str() {
            "" => None,
            text => Some(address("http_listen", text, self.allow_remote)?),
        };
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::Range {
                key: "data_dir",
                problem: "is empty; name a directory",
            });
        }
        let pg = self.pg()?;
        Ok(Config {
            listen,
            pg,
            http_listen,
            data_dir: self.data_dir,
            flush: positive("flush", &self.flush)?,
            flush_size: at_least("flush_size", &self.flush_size, 64 << 10)?,
            segment_size: at_least("segment_size", &self.segment_size, 64 << 10)?,
            group_commit: duration("group_commit", &self.group_commit)?,
            group_bytes: at_least("group_bytes", &self.group_bytes, 1)?,
            hot_limit: at_least("hot_limit", &self.hot_limit, 64 << 10)?,
            keep: kept(&self.keep, &self.keep_rollups)?,
            query_memory: at_least("query_memory", &self.query_memory, 16 << 20)?,
            query_children: children(self.query_children)?,
            query_program: None,
            query_timeout: positive("query_timeout", &self.query_timeout)?,
            remote_write: self.remote_write.validate()?,
        })
    }
}

/// Late rows come for a day, and are rolled up together with the others.
const LEAST_KEEP: Duration = Duration::from_secs(2 * 86_400);

fn kept(raw: &str, rollups: &str) -> Result<Keep, ConfigError> {
    let keep = Keep {
        raw: duration("keep", raw)?,
        rollups: duration("keep_rollups", rollups)?,
    };
    let range = |key, problem| Err(ConfigError::Range { key, problem });
    if keep.raw < LEAST_KEEP {
        return range(
            "keep",
            "is less than \"2d\": late rows of a day could not be rolled up",
        );
    }
    if keep.rollups < keep.raw {
        return range("keep_rollups", "is less than keep; give at least as much");
    }
    Ok(keep)
}

impl Raw {
    fn pg(&self) -> Result<Option<Pg>, ConfigError> {
        let bad = |key, problem| Err(ConfigError::Pg { key, problem });
        if self.pg_listen.is_empty() {
            return Ok(None);
        }
        let Ok(listen) = self.pg_listen.parse::<SocketAddr>() else {
            let text = &self.pg_listen;
            return bad(
                "pg_listen",
                format!(
                    "{text:?} is no address; write it like \"{DEFAULT_PG_LISTEN}\", or \"\" for none"
                ),
            );
        };
        let some = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let tls = match (some(&self.pg_cert), some(&self.pg_key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return bad("pg_key", "is empty, but pg_cert is not".into()),
            (None, Some(_)) => return bad("pg_cert", "is empty, but pg_key is not".into()),
        };
        if let Some((cert, key)) = &tls {
            crate::door::tls(cert, key)
                .map_err(|(key, problem)| ConfigError::Pg { key, problem })?;
        }
        let may_leave = self.allow_remote && tls.is_some();
        if !(listen.ip().is_loopback() || may_leave) {
            return bad(
                "pg_listen",
                format!(
                    "{listen} is no loopback address; use 127.0.0.1, or set allow_remote = true, pg_cert and pg_key"
                ),
            );
        }
        Ok(Some(Pg {
            listen,
            password_file: some(&self.pg_password_file),
            tls,
        }))
    }
}

impl RemoteWriteRaw {
    fn validate(self) -> Result<Option<RemoteWrite>, ConfigError> {
        let every = positive("remote_write.every", &self.every)?;
        if self.url.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(&self.url).ok();
        let url = url.filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let token_file = (!self.token_file.is_empty()).then(|| self.token_file.into());
        match url {
            Some(url) => Ok(Some(RemoteWrite {
                url,
                every,
                token_file,
            })),
            None => Err(ConfigError::Range {
                key: "remote_write.url",
                problem: "is no URL of a receiver; write it like \"https://prometheus.example/api/v1/write\"",
            }),
        }
    }
}

fn address(key: &'static str, text: &str, remote: bool) -> Result<SocketAddr, ConfigError> {
    let listen = |_| ConfigError::Listen {
        key,
        text: text.into(),
    };
    let address: SocketAddr = text.parse().map_err(listen)?;
    if address.ip().is_loopback() || remote {
        Ok(address)
    } else {
        Err(ConfigError::Remote { key, address })
    }
}

fn duration(key: &'static str, text: &str) -> Result<Duration, ConfigError> {
    parse_duration(text).map_err(|problem| ConfigError::Unit { key, problem })
}

fn children(count: u32) -> Result<usize, ConfigError> {
    let count = usize::try_from(count).ok().filter(|n| (1..=64).contains(n));
    count.ok_or(ConfigError::Range {
        key: "query_children",
        problem: "is not 1 to 64",
    })
}

fn positive(key: &'static str, text: &str) -> Result<Duration, ConfigError> {
    match duration(key, text)? {
        Duration::ZERO => Err(ConfigError::Range {
            key,
            problem: "is 0; write a duration like \"10s\"",
        }),
        d => Ok(d),
    }
}

fn at_least(key: &'static str, text: &str, least: u64) -> Result<u64, ConfigError> {
    let bytes = parse_size(text).map_err(|problem| ConfigError::Unit { key, problem })?;
    if bytes < least {
        let problem = if least >= 16 << 20 {
            "is too small; give at least \"16 MiB\""
        } else {
            "is too small; give at least \"64 KiB\""
        };
        return Err(ConfigError::Range { key, problem });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_loopback() {
        let config = Raw::default().validate().unwrap();
        assert!(config.listen.ip().is_loopback());
        assert_eq!(config.flush, Duration::from_secs(600));
        assert_eq!(config.segment_size, 128 << 20);
    }

    #[test]
    fn errors_name_the_key() {
        let bad = |change: fn(&mut Raw)| {
            let mut raw = Raw::default();
            change(&mut raw);
            raw.validate().unwrap_err().to_string()
        };
        assert!(bad(|r| r.listen = "0.0.0.0:7071".into()).starts_with("collector.listen: "));
        assert!(bad(|r| r.listen = "here".into()).starts_with("collector.listen: "));
        assert!(bad(|r| r.pg_listen = "here".into()).starts_with("collector.pg_listen: "));
        let open = bad(|r| {
            r.pg_listen = "0.0.0.0:5433".into();
            r.allow_remote = true;
        });
        assert!(
            open.starts_with("collector.pg_listen: ") && open.contains("pg_cert"),
            "{open}"
        );
        assert!(bad(|r| r.pg_cert = "cert.pem".into()).starts_with("collector.pg_key: "));
        let broken = bad(|r| {
            r.pg_cert = "/nonexistent/cert.pem".into();
            r.pg_key = "/nonexistent/key.pem".into();
        });
        assert!(broken.starts_with("collector.pg_cert: "), "{broken}");
        assert!(bad(|r| r.http_listen = "0.0.0.0:1".into()).starts_with("collector.http_listen: "));
        assert!(
            bad(|r| r.remote_write.url = "here".into()).starts_with("collector.remote_write.url: ")
        );
        assert!(
            bad(|r| r.remote_write.every = "0s".into())
                .starts_with("collector.remote_write.every: ")
        );
        assert!(bad(|r| r.flush = "soon".into()).starts_with("collector.flush: "));
        assert!(bad(|r| r.query_timeout = "0s".into()).starts_with("collector.query_timeout: "));
        assert!(bad(|r| r.query_children = 0).starts_with("collector.query_children: "));
        assert!(bad(|r| r.keep = "1d".into()).starts_with("collector.keep: "));
        assert!(bad(|r| r.keep_rollups = "3d".into()).starts_with("collector.keep_rollups: "));
        assert!(bad(|r| r.hot_limit = "1 B".into()).starts_with("collector.hot_limit: "));
    }
}

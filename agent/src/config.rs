//! Section `[agent]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use headroom_core::units::{UnitError, parse_duration, parse_size};
use serde::{Deserialize, Serialize};

use crate::probe::AttachPolicy;

/// Default of [`Raw::collector`].
pub const DEFAULT_COLLECTOR: &str = "127.0.0.1:7071";
/// Default of [`Raw::interval`].
pub const DEFAULT_INTERVAL: &str = "10s";
/// Default of [`Raw::data_dir`].
pub const DEFAULT_DATA_DIR: &str = "/var/lib/headroom";
/// Default of [`Raw::slots`]: 4096 threads take 7 MB of maps.
pub const DEFAULT_SLOTS: u16 = 4096;
/// Default of [`Raw::attach`].
pub const DEFAULT_ATTACH: &str = "auto";
/// Default of [`Raw::buffer`]: a window of a VM with one
/// vCPU takes 0.6 KB, so 32 MiB hold 8 hours of 20 such VMs.
pub const DEFAULT_BUFFER: &str = "32 MiB";
/// Default of [`Raw::spool_size`]: 60 hours of these.
pub const DEFAULT_SPOOL_SIZE: &str = "256 MiB";

/// Default of [`Raw::metrics_listen`].
pub const DEFAULT_METRICS_LISTEN: &str = "127.0.0.1:7070";

/// Section `[agent]` as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Address of the collector, `HOST:PORT`.
    pub collector: String,
    /// Length of a window; windows end at its multiples of wall time.
    pub interval: String,
    /// Directory for what the agent keeps: its id and the spool.
    pub data_dir: PathBuf,
    /// Threads the probes can measure at once; the rest falls back to schedstat.
    pub slots: u16,
    /// How to attach: `auto`, `tp_btf`, `raw_tp` or `off`.
    pub attach: String,
    /// Disk for batches that the collector has not acked; the oldest are dropped beyond.
    pub spool_size: String,
    /// Memory for batches that are not on the disk; the oldest are dropped beyond.
    pub buffer: String,
    /// Host name in the rows; empty: this host's.
    pub host: String,
    /// Whether to drop every capability once the probes are attached.
    pub drop_capabilities: bool,
    /// Labels of VMs, a TOML file; empty: none.
    pub labels: String,
    /// Address of `/metrics` for Prometheus; empty: none.
    pub metrics_listen: String,
    /// Whether it may be another than a loopback address.
    pub metrics_allow_remote: bool,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            collector: DEFAULT_COLLECTOR.into(),
            interval: DEFAULT_INTERVAL.into(),
            data_dir: DEFAULT_DATA_DIR.into(),
            slots: DEFAULT_SLOTS,
            attach: DEFAULT_ATTACH.into(),
            spool_size: DEFAULT_SPOOL_SIZE.into(),
            buffer: DEFAULT_BUFFER.into(),
            host: String::new(),
            drop_capabilities: true,
            labels: String::new(),
            metrics_listen: DEFAULT_METRICS_LISTEN.into(),
            metrics_allow_remote: false,
        }
    }
}

/// Section `[agent]`, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the collector, `HOST:PORT`.
    pub collector: String,
    /// Length of a window.
    pub interval: Duration,
    /// Directory for what the agent keeps.
    pub data_dir: PathBuf,
    /// Threads the probes can measure at once.
    pub slots: u16,
    /// How to attach.
    pub attach: AttachPolicy,
    /// Disk for unacked batches, bytes.
    pub spool_bytes: u64,
    /// Memory for batches that are not on the disk, bytes.
    pub buffer_bytes: usize,
    /// Host name in the rows.
    pub host: String,
    /// Whether to drop every capability after attaching.
    pub drop_capabilities: bool,
    /// Labels of VMs, see [`crate::inventory::Rules`]; it need not be there yet.
    pub labels: Option<PathBuf>,
    /// Address of `/metrics`.
    pub metrics_listen: Option<SocketAddr>,
}

/// A key of the configuration is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}; {remedy}")]
pub struct ConfigError {
    key: String,
    problem: String,
    remedy: &'static str,
}

impl Raw {
    /// Reads section `[agent]` out of a whole configuration file; other
    /// services' sections are theirs to check.
    ///
    /// # Errors
    /// No TOML, or an unknown or mistyped key in the section.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let toml = |e: toml::de::Error| {
            error(
                "agent",
                e.message().to_owned(),
                "see `headroom config print` for every key",
            )
        };
        let mut file: toml::Table = text.parse().map_err(toml)?;
        file.remove("agent").map_or_else(
            || Ok(Self::default()),
            |section| section.try_into().map_err(toml),
        )
    }

    /// Checks each value.
    ///
    /// # Errors
    /// The first value that is wrong, by its key.
    pub fn validate(self) -> Result<Config, ConfigError> {
        Ok(Config {
            interval: interval(&self.interval)?,
            spool_bytes: spool_size(&self.spool_size)?,
            buffer_bytes: buffer(&self.buffer)?,
            attach: attach(&self.attach)?,
            collector: collector(self.collector)?,
            slots: slots(self.slots)?,
            host: host(self.host)?,
            labels: labels(&self.labels)?,
            metrics_listen: metrics_listen(&self.metrics_listen, self.metrics_allow_remote)?,
            data_dir: self.data_dir,
            drop_capabilities: self.drop_capabilities,
        })
    }
}

fn interval(text: &str) -> Result<Duration, ConfigError> {
    let key = "agent.interval";
    let value = parse_duration(text)
        .map_err(|e: UnitError| error(key, e.to_string(), "the default is \"10s\""))?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    match allowed.contains(&value) && value.subsec_nanos() == 0 {
        true => Ok(value),
        false => Err(error(
            key,
            format!("{text:?} is no whole number of seconds from 1s to 1h"),
            "the default is \"10s\"",
        )),
    }
}

fn spool_size(text: &str) -> Result<u64, ConfigError> {
    let key = "agent.spool_size";
    let remedy = "the default is \"256 MiB\"";
    let bytes = parse_size(text).map_err(|e: UnitError| error(key, e.to_string(), remedy))?;
    match (16 << 20..=1 << 40).contains(&bytes) {
        true => Ok(bytes),
        false => Err(error(
            key,
            format!("{text:?} is not from 16 MiB to 1 TiB"),
            remedy,
        )),
    }
}

fn buffer(text: &str) -> Result<usize, ConfigError> {
    let key = "agent.buffer";
    let bytes = parse_size(text)
        .map_err(|e: UnitError| error(key, e.to_string(), "the default is \"32 MiB\""))?;
    let bytes = usize::try_from(bytes)
        .ok()
        .filter(|b| (1 << 20..=1 << 34).contains(b));
    bytes.ok_or_else(|| {
        error(
            key,
            format!("{text:?} is not from 1 MiB to 16 GiB"),
            "the default is \"32 MiB\"",
        )
    })
}

fn attach(text: &str) -> Result<AttachPolicy, ConfigError> {
    match text {
        "auto" => Ok(AttachPolicy::Auto),
        "tp_btf" => Ok(AttachPolicy::TpBtf),
        "raw_tp" => Ok(AttachPolicy::RawTp),
        "off" => Ok(AttachPolicy::Off),
        _ => Err(error(
            "agent.attach",
            format!("{text:?} is unknown"),
            "use auto, tp_btf, raw_tp or off",
        )),
    }
}

/// The wire is plain text for now, so it stays on the loopback interface.
fn collector(text: String) -> Result<String, ConfigError> {
    let key = "agent.collector";
    let remedy = "write it like \"127.0.0.1:7071\"";
    let loopback = match (text.parse::<SocketAddr>(), text.rsplit_once(':')) {
        (Ok(address), _) => address.ip().is_loopback(),
        (Err(_), Some((host, port))) if port.parse::<u16>().is_ok() => host == "localhost",
        _ => return Err(error(key, format!("{text:?} is no HOST:PORT"), remedy)),
    };
    match loopback {
        true => Ok(text),
        false => Err(error(
            key,
            format!("{text:?} is not on the loopback interface and the wire has no TLS yet"),
            remedy,
        )),
    }
}

fn slots(value: u16) -> Result<u16, ConfigError> {
    let problem = || "0 measures nothing".to_owned();
    (value > 0).then_some(value).ok_or_else(|| {
        error(
            "agent.slots",
            problem(),
            "the default is 4096; attach = \"off\" does without probes",
        )
    })
}

fn host(text: String) -> Result<String, ConfigError> {
    let own = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    let name = if text.is_empty() { own() } else { text };
    let good =
        (1..=253).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c == '/');
    good.then_some(()).ok_or_else(|| {
        error(
            "agent.host",
            format!("{name:?} is no host name"),
            "use 1 to 253 characters without /",
        )
    })?;
    Ok(name)
}

/// A daemon's working directory is none that anybody would expect.
fn labels(text: &str) -> Result<Option<PathBuf>, ConfigError> {
    let path = PathBuf::from(text);
    match (text.is_empty(), path.is_absolute()) {
        (true, _) => Ok(None),
        (_, true) => Ok(Some(path)),
        _ => Err(error(
            "agent.labels",
            format!("{text:?} is no absolute path"),
            "write it like \"/etc/headroom/labels.toml\", or \"\" for none",
        )),
    }
}

fn metrics_listen(text: &str, remote: bool) -> Result<Option<SocketAddr>, ConfigError> {
    let key = "agent.metrics_listen";
    if text.is_empty() {
        return Ok(None);
    }
    let remedy = "write it like \"127.0.0.1:7070\", or \"\" for no metrics";
    match text.parse::<SocketAddr>() {
        Err(_) => Err(error(
            key,
            format!("{text:?} is no address and port"),
            remedy,
        )),
        Ok(address) if address.ip().is_loopback() || remote => Ok(Some(address)),
        Ok(_) => Err(error(
            key,
            format!("{text:?} is no loopback address and the port has no TLS and no login"),
            "use 127.0.0.1, or set metrics_allow_remote = true on a network you trust",
        )),
    }
}

fn error(key: &str, problem: String, remedy: &'static str) -> ConfigError {
    ConfigError {
        key: key.into(),
        problem,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        let config = Raw::default().validate().unwrap();
        assert_eq!(config.interval, Duration::from_secs(10));
        assert_eq!(config.buffer_bytes, 32 << 20);
        assert_eq!(config.spool_bytes, 256 << 20);
        assert!(!config.host.is_empty());
    }

    #[test]
    fn errors_name_the_key() {
        let check = |key: &str, change: fn(&mut Raw)| {
            let mut raw = Raw::default();
            change(&mut raw);
            let text = raw.validate().unwrap_err().to_string();
            assert!(text.starts_with(key) && text.contains("; "), "{text}");
        };
        check("agent.interval: ", |r| r.interval = "0.5s".into());
        check("agent.interval: ", |r| r.interval = "ten".into());
        check("agent.spool_size: ", |r| r.spool_size = "4 MiB".into());
        check("agent.buffer: ", |r| r.buffer = "1 KiB".into());
        check("agent.attach: ", |r| r.attach = "kprobe".into());
        check("agent.collector: ", |r| r.collector = "7071".into());
        check("agent.collector: ", |r| {
            r.collector = "192.0.2.1:7071".into()
        });
        check("agent.slots: ", |r| r.slots = 0);
        check("agent.host: ", |r| r.host = "a/b".into());
        check("agent.labels: ", |r| r.labels = "labels.toml".into());
        check("agent.metrics_listen: ", |r| {
            r.metrics_listen = "7070".into()
        });
        check("agent.metrics_listen: ", |r| {
            r.metrics_listen = "0.0.0.0:7070".into();
        });
    }

    #[test]
    fn a_file_for_all_services() {
        let text = "[collector]\nlisten = \"x\"\n[agent]\ninterval = \"5s\"\n";
        assert_eq!(Raw::from_toml(text).unwrap().interval, "5s");
        assert_eq!(Raw::from_toml("").unwrap(), Raw::default());
        let text = Raw::from_toml("[agent]\nintervall = \"5s\"")
            .unwrap_err()
            .to_string();
        assert!(text.contains("intervall"), "{text}");
        let shipped = toml::to_string(&Raw::default()).unwrap();
        assert_eq!(
            Raw::from_toml(&format!("[agent]\n{shipped}")).unwrap(),
            Raw::default()
        );
    }
}

//! Section `[forecaster]` of the configuration file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use headroom_core::units::parse_duration;
use serde::{Deserialize, Serialize};

/// Address of the collector.
pub const DEFAULT_COLLECTOR: &str = "127.0.0.1:7071";
/// Directory of durable state; the forecaster's part is `forecaster/` in it.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/headroom";
/// Time between two forecasts of everything.
pub const DEFAULT_EVERY: &str = "30s";
/// How far ahead is forecast.
pub const DEFAULT_HORIZON: &str = "1h";
/// History a recommendation needs at least.
pub const DEFAULT_MIN_HISTORY: &str = "2m";
/// Points of history kept for each series.
pub const DEFAULT_MAX_POINTS: usize = 720;
/// Probability of a breach that a recommendation needs.
pub const DEFAULT_CONFIDENCE: f64 = 0.7;
/// Time in which a subject gets no second recommendation of the same kind.
pub const DEFAULT_COOLDOWN: &str = "15m";
/// Where acknowledgements are taken: nowhere until something serves them.
pub const DEFAULT_ACK_BASE: &str = "";

/// The section as it stands in the file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// `host:port` of the collector.
    pub collector: String,
    /// Directory of durable state.
    pub data_dir: PathBuf,
    /// Time between two forecasts.
    pub every: String,
    /// How far ahead is forecast.
    pub horizon: String,
    /// History a recommendation needs at least.
    pub min_history: String,
    /// Points of history kept for each series, 32 to 20000.
    pub max_points: usize,
    /// Probability of a breach that a recommendation needs, 0 to 1.
    pub confidence: f64,
    /// Time in which a subject gets no second recommendation of the same kind.
    pub cooldown: String,
    /// What is a breach.
    pub limits: Limits,
    /// Where recommendations are sent.
    pub webhook: RawWebhook,
}

/// What is a breach.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Demand of a VM, as a fraction of its vCPUs.
    pub vm_demand: f64,
    /// Demand on a host, as a fraction of its CPU threads.
    pub host_demand: f64,
    /// `ready_ratio` of a VM, averaged over its vCPUs.
    pub vm_ready: f64,
}

/// Where recommendations are sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWebhook {
    /// `http://` or `https://` address; empty sends nothing.
    pub url: String,
    /// File holding a `whsec_…` secret; empty makes one in the data directory.
    pub secret_file: PathBuf,
    /// CIDRs of loopback, private or metadata addresses that may be connected to.
    pub allow: Vec<String>,
    /// Address that serves `/v1/recommendations/{id}/ack`; empty leaves `ack` out.
    pub ack_base: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            collector: DEFAULT_COLLECTOR.into(),
            data_dir: DEFAULT_DATA_DIR.into(),
            every: DEFAULT_EVERY.into(),
            horizon: DEFAULT_HORIZON.into(),
            min_history: DEFAULT_MIN_HISTORY.into(),
            max_points: DEFAULT_MAX_POINTS,
            confidence: DEFAULT_CONFIDENCE,
            cooldown: DEFAULT_COOLDOWN.into(),
            limits: Limits::default(),
            webhook: RawWebhook::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            vm_demand: 0.8,
            host_demand: 0.85,
            vm_ready: 0.05,
        }
    }
}

impl Default for RawWebhook {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret_file: PathBuf::new(),
            allow: Vec::new(),
            ack_base: DEFAULT_ACK_BASE.into(),
        }
    }
}

/// The validated section.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `http://host:port` of the collector.
    pub collector: String,
    /// Directory of the forecaster's own durable state.
    pub state_dir: PathBuf,
    /// Time between two forecasts.
    pub every: Duration,
    /// How far ahead is forecast.
    pub horizon: Duration,
    /// Points of history kept for each series.
    pub max_points: usize,
    /// What passes the gate.
    pub gate: GateConfig,
    /// Where recommendations are sent.
    pub webhook: WebhookConfig,
}

/// What passes the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct GateConfig {
    /// What is a breach.
    pub limits: Limits,
    /// Probability of a breach that is needed.
    pub confidence: f64,
    /// History that is needed.
    pub min_history: Duration,
    /// Time without a second recommendation of the same subject and kind.
    pub cooldown: Duration,
    /// Address that serves acknowledgements, without a slash at its end.
    pub ack_base: Option<String>,
}

/// Where recommendations are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookConfig {
    /// Receiver; `None` sends nothing.
    pub url: Option<String>,
    /// File of the secret; `None` makes one in the state directory.
    pub secret_file: Option<PathBuf>,
    /// Networks that may be connected to although they are not public.
    pub allow: Vec<Cidr>,
}

/// A network of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().ok()?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix
            .map_or(Some(widest), |p| p.parse().ok())
            .filter(|p| *p <= widest)?;
        Some(Self { address, prefix })
    }

    /// Whether the address lies in the network. Families never match each other.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            self.prefix == 0 || (a ^ b) >> (width - self.prefix) == 0
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// A key with an unusable value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("forecaster.{key}: {problem}; {remedy}")]
pub struct ConfigError {
    key: &'static str,
    problem: String,
    remedy: &'static str,
}

impl Raw {
    /// Checks every key.
    ///
    /// # Errors
    /// The first key with an unusable value.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let horizon = duration("horizon", &self.horizon)?;
        let every = duration("every", &self.every)?;
        if !self
            .collector
            .rsplit_once(':')
            .is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok())
        {
            return Err(error(
                "collector",
                format!("{:?} is no host:port", self.collector),
                "write it like \"127.0.0.1:7071\"",
            ));
        }
        if !(32..=20_000).contains(&self.max_points) {
            return Err(error(
                "max_points",
                format!("{} is out of range", self.max_points),
                "use 32 to 20000",
            ));
        }
        ratio("confidence", self.confidence)?;
        ratio("limits.vm_demand", self.limits.vm_demand)?;
        ratio("limits.host_demand", self.limits.host_demand)?;
        ratio("limits.vm_ready", self.limits.vm_ready)?;
        let gate = GateConfig {
            limits: self.limits,
            confidence: self.confidence,
            min_history: duration("min_history", &self.min_history)?,
            cooldown: duration("cooldown", &self.cooldown)?,
            ack_base: Some(self.webhook.ack_base.trim_end_matches('/').to_owned())
                .filter(|b| !b.is_empty()),
        };
        let webhook = self.webhook.validate()?;
        let (collector, state_dir) = (
            format!("http://{}", self.collector),
            self.data_dir.join("forecaster"),
        );
        Ok(Config {
            collector,
            state_dir,
            every,
            horizon,
            max_points: self.max_points,
            gate,
            webhook,
        })
    }
}

impl RawWebhook {
    fn validate(self) -> Result<WebhookConfig, ConfigError> {
        let url = Some(self.url).filter(|u| !u.is_empty());
        if let Some(url) = &url {
            crate::notify::check_url(url).map_err(|e| {
                error(
                    "webhook.url",
                    e.to_string(),
                    "write it like \"https://receiver.example/hook\"",
                )
            })?;
        }
        let cidr = |text: &String| {
            let problem = || {
                error(
                    "webhook.allow",
                    format!("{text:?} is no network"),
                    "write it like \"127.0.0.0/8\"",
                )
            };
            Cidr::parse(text).ok_or_else(problem)
        };
        let allow = self.allow.iter().map(cidr).collect::<Result<_, _>>()?;
        let secret_file = Some(self.secret_file).filter(|f| !f.as_os_str().is_empty());
        Ok(WebhookConfig {
            url,
            secret_file,
            allow,
        })
    }
}

fn duration(key: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let parsed = parse_duration(text).map_err(|e| error(key, e.to_string(), "use a duration"))?;
    let fine = (Duration::from_millis(100)..=Duration::from_secs(30 * 86_400)).contains(&parsed);
    if fine {
        Ok(parsed)
    } else {
        Err(error(
            key,
            format!("{text:?} is out of range"),
            "use 100ms to 30d",
        ))
    }
}

fn ratio(key: &'static str, value: f64) -> Result<(), ConfigError> {
    let fine = value > 0.0 && value <= 1.0;
    if fine {
        Ok(())
    } else {
        Err(error(
            key,
            format!("{value} is no fraction"),
            "use a number above 0 and up to 1",
        ))
    }
}

fn error(key: &'static str, problem: String, remedy: &'static str) -> ConfigError {
    ConfigError {
        key,
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
        assert_eq!(config.collector, "http://127.0.0.1:7071");
        assert_eq!(config.horizon, Duration::from_secs(3600));
        assert_eq!(config.webhook.url, None);
    }

    #[test]
    fn errors_name_the_key() {
        let cases: [(&str, &str); 8] = [
            ("every = \"soon\"", "forecaster.every"),
            ("horizon = \"0s\"", "forecaster.horizon"),
            ("collector = \"nowhere\"", "forecaster.collector"),
            ("confidence = 1.5", "forecaster.confidence"),
            ("max_points = 1", "forecaster.max_points"),
            ("[limits]\nvm_ready = 0.0", "forecaster.limits.vm_ready"),
            ("[webhook]\nurl = \"ftp://x/\"", "forecaster.webhook.url"),
            (
                "[webhook]\nallow = [\"10.0.0.0/40\"]",
                "forecaster.webhook.allow",
            ),
        ];
        for (text, key) in cases {
            let error = toml::from_str::<Raw>(text)
                .unwrap()
                .validate()
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(key), "{text}: {error}");
        }
        assert!(toml::from_str::<Raw>("hoizon = \"1h\"").is_err());
    }

    #[test]
    fn networks() {
        let net = Cidr::parse("127.0.0.0/8").unwrap();
        assert!(net.contains("127.9.9.9".parse().unwrap()));
        assert!(!net.contains("128.0.0.1".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert!(
            Cidr::parse("::/0")
                .unwrap()
                .contains("2001:db8::1".parse().unwrap())
        );
        assert!(
            Cidr::parse("192.0.2.7")
                .unwrap()
                .contains("192.0.2.7".parse().unwrap())
        );
        for bad in ["", "10.0.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }
}

//! A Prometheus of Debian's, with headroom's rules.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::{wait_for, web};

/// A running Prometheus; dropping it ends it.
pub struct Prometheus {
    child: Child,
    dir: PathBuf,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Prometheus {
    /// Starts it on an empty directory and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{rules}\"]\n\
             scrape_configs:\n\
             - job_name: headroom\n  file_sd_configs:\n  - {{ files: [\"targets.json\"], refresh_interval: 1s }}\n",
            rules = rules("rules.yml").display(),
        );
        fs::write(dir.join("prometheus.yml"), config)?;
        // It can't say which port it took of several: one that is free now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new("/usr/bin/prometheus")
            .arg(format!(
                "--config.file={}",
                dir.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start prometheus")?;
        let started = Self {
            child,
            dir: dir.to_owned(),
            address,
        };
        let ready = || web::get(&started.address, "/-/ready");
        wait_for("prometheus", Duration::from_secs(60), ready)
            .with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())?;
        Ok(started)
    }

    /// Lets it scrape these, as jobs `headroom-agent` and so on.
    ///
    /// # Errors
    /// The list can't be written.
    pub fn scrape(&self, targets: &[(&str, &str)]) -> anyhow::Result<()> {
        let target = |(job, address): &(&str, &str)| serde_json::json!({ "targets": [address], "labels": { "job": job } });
        let list: Vec<Value> = targets.iter().map(target).collect();
        let temporary = self.dir.join(".targets");
        fs::write(&temporary, Value::from(list).to_string())?;
        fs::rename(temporary, self.dir.join("targets.json"))?;
        Ok(())
    }

    /// Series and values of an expression, now or at a time (s since 1970).
    ///
    /// # Errors
    /// It does not answer, or not with success.
    pub fn query(&self, expression: &str, at: Option<&str>) -> anyhow::Result<Vec<(Value, f64)>> {
        let mut path = format!("/api/v1/query?query={}", web::encoded(expression));
        if let Some(at) = at {
            path.push_str(&format!("&time={at}"));
        }
        let answer: Value = serde_json::from_str(&web::get(&self.address, &path)?)?;
        let result = answer["data"]["result"].as_array().context("no result")?;
        let pair = |entry: &Value| {
            let value = entry["value"][1].as_str()?.parse().ok()?;
            Some((entry["metric"].clone(), value))
        };
        Ok(result.iter().filter_map(pair).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of `dashboards/prometheus`.
#[must_use]
pub fn rules(name: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards/prometheus");
    Path::new(root).join(name)
}

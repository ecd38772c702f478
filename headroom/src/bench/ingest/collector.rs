//! The collector under test: a real process, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

/// Longest wait for a collector that starts: a debug build on a busy machine
/// replays a full log in some ten seconds.
const START: Duration = Duration::from_secs(120);
/// Longest wait for its end, with its last flush.
const STOP: Duration = Duration::from_secs(120);
/// How often it is asked whether it answers.
const POLL: Duration = Duration::from_millis(5);
/// Ticks of a CPU second in /proc (`USER_HZ`, 100 on every architecture).
const TICKS: f64 = 100.0;

/// A running collector.
pub struct Collector {
    data_dir: PathBuf,
    child: Child,
    /// CPU time of the first process before the first batch, s.
    idle_s: f64,
    /// CPU time of all processes that ended before the first batch, s.
    children_s: f64,
    rss_mib: f64,
}

impl Collector {
    /// Starts one on an empty directory and waits until it answers.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let children_s = children_cpu_s()?;
        let child = spawn(data_dir)?;
        let mut collector = Self {
            data_dir: data_dir.to_owned(),
            child,
            idle_s: 0.0,
            children_s,
            rss_mib: 0.0,
        };
        collector.answers().await?;
        collector.idle_s = collector.cpu_s()?;
        Ok(collector)
    }

    /// File with its address.
    pub fn endpoint(&self) -> PathBuf {
        self.data_dir.join("endpoint")
    }

    /// CPU time since the first batch, of every process so far, s.
    ///
    /// # Errors
    /// The process is gone.
    pub fn used_s(&self) -> anyhow::Result<f64> {
        Ok(self.cpu_s()? + children_cpu_s()? - self.children_s - self.idle_s)
    }

    /// Kills it and starts it again; gives the time from the start to its first
    /// answer, ms.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn kill(&mut self) -> anyhow::Result<f64> {
        self.note_rss();
        self.child.kill().await.context("kill the collector")?;
        let _ = std::fs::remove_file(self.endpoint());
        let began = Instant::now();
        self.child = spawn(&self.data_dir)?;
        self.answers().await?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    /// Lets it drain; gives the CPU time since the first batch, s, and its peak
    /// resident memory, MiB.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(mut self) -> anyhow::Result<(f64, f64)> {
        self.note_rss();
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        let status = ended.context("the collector does not end")??;
        anyhow::ensure!(status.success(), "the collector ended with {status}");
        let cpu_s = children_cpu_s()? - self.children_s - self.idle_s;
        Ok((cpu_s.max(1.0 / TICKS), self.rss_mib))
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Some(client) = crate::sql::live(&self.data_dir).await
                && client.status().await.is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the collector ended with {status}; its reason stands above");
            }
            if began.elapsed() > START {
                bail!("the collector does not answer within {} s", START.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn cpu_s(&self) -> anyhow::Result<f64> {
        let pid = self.child.id().context("the collector has ended")?;
        stat(&format!("/proc/{pid}/stat"), [13, 14])
    }

    fn note_rss(&mut self) {
        let Some(pid) = self.child.id() else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        self.rss_mib = self.rss_mib.max(kib.unwrap_or(0.0) / 1024.0);
    }
}

fn spawn(data_dir: &Path) -> anyhow::Result<Child> {
    let config = data_dir.join("bench.toml");
    let text = format!(
        "[collector]\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\n",
        data_dir.display().to_string()
    );
    std::fs::write(&config, text).context("write the collector's configuration")?;
    Command::new(std::env::current_exe().context("find this program's file")?)
        .args(["serve", "collector", "--config"])
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .env("HEADROOM_LOG", "warn")
        .spawn()
        .context("start the collector")
}

/// CPU time of this process' children that have ended, s.
fn children_cpu_s() -> anyhow::Result<f64> {
    stat("/proc/self/stat", [15, 16])
}

/// Sum of two fields of `/proc/PID/stat`, numbered from 0, s.
fn stat(path: &str, fields: [usize; 2]) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    // The name, in parentheses, may hold spaces; the third field follows it.
    let rest = text.rsplit_once(") ").context("stat without a name")?.1;
    let values: Vec<&str> = rest.split_whitespace().collect();
    let mut ticks = 0.0;
    for field in fields {
        let value = values.get(field - 2).context("stat is too short")?;
        ticks += value.parse::<f64>().context("stat holds no number")?;
    }
    Ok(ticks / TICKS)
}

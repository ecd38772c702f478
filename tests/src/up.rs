//! `headroom up` as a user starts it, on ports of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A running `headroom up`; dropping it stops it.
pub struct Up {
    child: Child,
    data_dir: PathBuf,
    /// Address of the page, `http://127.0.0.1:PORT`.
    pub page: String,
}

impl Up {
    /// Starts it on a directory with the given configuration (TOML; the
    /// ports are chosen freely) and flags, and waits until it says
    /// that it is up.
    ///
    /// # Errors
    /// It ended before that.
    pub fn start(data_dir: &Path, config: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let file = data_dir.with_extension("toml");
        let free = "\"127.0.0.1:0\"";
        let config = with(config, "[agent]", &format!("metrics_listen = {free}"));
        let doors = format!("listen = {free}\nhttp_listen = {free}\npg_listen = {free}");
        let config = with(&config, "[collector]", &doors);
        std::fs::write(&file, config)?;
        let mut child = Command::new(crate::headroom())
            .args(["up", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(data_dir)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let page = loop {
            let Some(line) = out.next() else {
                bail!("headroom up ended: {}", child.wait()?);
            };
            if let Some(page) = line?.trim().strip_prefix("page") {
                break page.trim().trim_end_matches('/').to_owned();
            }
        };
        // Somebody has to read on, or it blocks on a full pipe.
        std::thread::spawn(move || out.for_each(drop));
        Ok(Self {
            child,
            data_dir: data_dir.to_owned(),
            page,
        })
    }

    /// Rows of a statement, asked of the running collector or of the directory.
    ///
    /// # Errors
    /// `headroom sql` failed; with what it said.
    pub fn sql(&self, statement: &str) -> anyhow::Result<Vec<Value>> {
        sql(&self.data_dir, statement)
    }

    /// Process id of one of its services.
    ///
    /// # Errors
    /// There is none right now.
    pub fn service(&self, name: &str) -> anyhow::Result<u32> {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id()))
                .unwrap_or_default();
        let from_list = children
            .split_whitespace()
            .filter_map(|p| p.parse().ok())
            .find(|pid| is_service(*pid, name));
        from_list
            .or_else(|| {
                all_pids()
                    .find(|pid| parent(*pid) == Some(self.child.id()) && is_service(*pid, name))
            })
            .with_context(|| format!("no {name} below {}", self.child.id()))
    }

    /// Stops it as Ctrl-C does and gives its exit status.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.interrupt();
        Ok(self.child.wait()?)
    }

    fn interrupt(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
            for _ in 0..300 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A configuration with further keys in a section.
fn with(config: &str, section: &str, keys: &str) -> String {
    if config.contains(section) {
        config.replacen(section, &format!("{section}\n{keys}"), 1)
    } else {
        format!("{config}\n{section}\n{keys}\n")
    }
}

/// Rows of a statement on a data directory, as `headroom sql -o json` prints.
///
/// # Errors
/// `headroom sql` failed; with what it said.
pub fn sql(data_dir: &Path, statement: &str) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(crate::headroom());
    command
        .args(["sql", "-o", "json", "--data-dir"])
        .arg(data_dir)
        .arg(statement);
    let text = crate::output(&mut command)?;
    serde_json::from_str(&text).with_context(|| format!("{statement}: {text}"))
}

fn all_pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_string_lossy().parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn is_service(pid: u32, name: &str) -> bool {
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let args: Vec<&[u8]> = cmdline.split(|b| *b == 0).collect();
    args.get(1) == Some(&b"serve".as_slice()) && args.get(2) == Some(&name.as_bytes())
}

//! Children of `headroom up`: started again when they end, drained when we end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Waits between restarts: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A child that lived this long did its work before it ended: it starts again
/// after the shortest wait, whatever came before.
const STEADY: Duration = Duration::from_secs(2);
/// From the closed pipe to SIGKILL: the collector's last flush to Parquet.
const DRAIN: Duration = Duration::from_secs(20);

/// A service in a process of its own.
pub struct Service {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    first_exit: Arc<OnceLock<ExitStatus>>,
}

impl Service {
    /// Starts `headroom serve NAME --config FILE` and keeps it running.
    ///
    /// # Errors
    /// The process can't be started at all.
    pub fn start(name: &'static str, config: &Path) -> anyhow::Result<Self> {
        let child = spawn(name, config)?;
        let (stop, stopped) = watch::channel(false);
        let first_exit = Arc::new(OnceLock::new());
        let task = tokio::spawn(keep(
            name,
            config.to_owned(),
            child,
            stopped,
            first_exit.clone(),
        ));
        Ok(Self {
            stop,
            task,
            first_exit,
        })
    }

    /// How its first process ended, if it has.
    pub fn first_exit(&mut self) -> Option<ExitStatus> {
        self.first_exit.get().copied()
    }

    /// Lets it drain and waits for its end.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "supervisor failed");
        }
    }
}

fn spawn(name: &str, config: &Path) -> anyhow::Result<Child> {
    let exe = std::env::current_exe().context("find this program's file")?;
    Command::new(exe)
        .args(["serve", name, "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // A child of its own group: the terminal's Ctrl-C reaches only us, and
        // we decide the order in which they drain.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start the {name}"))
}

async fn keep(
    name: &'static str,
    config: PathBuf,
    mut child: Child,
    mut stopped: watch::Receiver<bool>,
    first_exit: Arc<OnceLock<ExitStatus>>,
) {
    let mut wait = BACKOFF.0;
    loop {
        let since = Instant::now();
        // Held apart: waiting for a child closes the standard input it holds,
        // and for ours that is the sign to drain.
        let stdin = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                if let Ok(status) = status {
                    let _ = first_exit.set(status);
                }
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                tracing::error!(service = name, status, "service ended; starting it again");
            }
            () = asked_to_stop(&mut stopped) => return drain(name, child, stdin).await,
        }
        wait = if since.elapsed() > STEADY {
            BACKOFF.0
        } else {
            (wait * 2).min(BACKOFF.1)
        };
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = asked_to_stop(&mut stopped) => return,
            }
            match spawn(name, &config) {
                Ok(child) => break child,
                Err(error) => tracing::error!(
                    service = name,
                    error = format!("{error:#}"),
                    "service can't start"
                ),
            }
        };
    }
}

/// Also when nobody is left who could ask.
async fn asked_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn drain(name: &str, mut child: Child, stdin: Option<ChildStdin>) {
    drop(stdin);
    match tokio::time::timeout(DRAIN, child.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(status) => tracing::warn!(service = name, ?status, "service ended with a failure"),
        Err(_) => {
            tracing::warn!(service = name, "service does not drain; killing it");
            let _ = child.kill().await;
        }
    }
}

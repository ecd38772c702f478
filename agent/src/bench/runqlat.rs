//! The peer: libbpf-tools' runqlat, attached and detached.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::BenchError;

/// It loads three programs: sched_wakeup, sched_wakeup_new, sched_switch.
const LINKS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running runqlat; killed when dropped.
pub struct Runqlat {
    child: Child,
    program: String,
}

impl Runqlat {
    /// Starts it and waits until all its programs are attached.
    ///
    /// # Errors
    /// It does not start, or ends, or attaches nothing in 20 s.
    pub fn start(program: &Path) -> Result<Self, BenchError> {
        let shown = program.display().to_string();
        // One report after an hour: it prints nothing while we measure.
        let spawned = Command::new(program)
            .args(["3600", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = spawned.map_err(|source| BenchError::Runqlat {
            program: shown.clone(),
            source,
        })?;
        let mut peer = Self {
            child,
            program: shown,
        };
        peer.wait_attached().map_err(|source| peer.failed(source))?;
        Ok(peer)
    }

    /// Ends it; its programs are detached when this returns.
    ///
    /// # Errors
    /// It can't be killed.
    pub fn stop(mut self) -> Result<(), BenchError> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(drop).map_err(|source| self.failed(source))
    }

    fn wait_attached(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once: {status}")));
            }
            if links(self.child.id()) >= LINKS {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn failed(&self, source: io::Error) -> BenchError {
        BenchError::Runqlat {
            program: self.program.clone(),
            source,
        }
    }
}

impl Drop for Runqlat {
    fn drop(&mut self) {
        // Already gone after `stop`: then both fail, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// BPF links that a process holds.
fn links(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .filter(|info| info.contains("link_type:"))
        .count()
}

//! The peers: other tools that watch the same events, attached and detached.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::BenchError;

const PATIENCE: Duration = Duration::from_secs(20);

/// How to start a peer, and how to tell that it is attached.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its program.
    pub program: PathBuf,
    /// What it gets.
    pub args: Vec<OsString>,
    /// The sign.
    pub ready: Ready,
}

/// What says that a peer's programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It holds this many BPF links.
    Links(usize),
    /// It prints this line.
    Line(&'static str),
}

impl Spec {
    /// libbpf-tools' `runqlat`: sched_wakeup, sched_wakeup_new, sched_switch.
    pub fn runqlat(program: &Path) -> Self {
        Self::silent(program, 3)
    }

    /// libbpf-tools' `biolatency`: block_rq_issue, block_rq_complete.
    pub fn biolatency(program: &Path) -> Self {
        Self::silent(program, 2)
    }

    fn silent(program: &Path, links: usize) -> Self {
        Self {
            program: program.to_owned(),
            // One report after an hour: it prints nothing while we measure.
            args: ["3600", "1"].map(OsString::from).to_vec(),
            ready: Ready::Links(links),
        }
    }
}

/// A running peer; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    program: String,
}

impl Peer {
    /// Starts it and waits until all its programs are attached.
    ///
    /// # Errors
    /// It does not start, or ends, or attaches nothing in 20 s.
    pub fn start(spec: &Spec) -> Result<Self, BenchError> {
        let program = spec.program.display().to_string();
        let out = match spec.ready {
            Ready::Links(_) => Stdio::null(),
            Ready::Line(_) => Stdio::piped(),
        };
        let spawned = Command::new(&spec.program)
            .args(&spec.args)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn();
        let child = spawned.map_err(|source| BenchError::Peer {
            program: program.clone(),
            source,
        })?;
        let mut peer = Self { child, program };
        let attached = match spec.ready {
            Ready::Links(count) => peer.wait_links(count),
            Ready::Line(line) => peer.wait_line(line),
        };
        attached.map_err(|source| peer.failed(source))?;
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

    fn wait_links(&mut self, count: usize) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.child.try_wait()?.is_some() {
                return Err(self.ended());
            }
            if links(self.child.id()) >= count {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn wait_line(&mut self, sign: &'static str) -> io::Result<()> {
        let (send, receive) = mpsc::channel();
        if let Some(out) = self.child.stdout.take() {
            // Reads on to the end, so that the peer never waits for us.
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if line.trim() == sign {
                        // Nobody listens only after the patience is over.
                        let _ = send.send(());
                    }
                }
            });
        }
        match receive.recv_timeout(PATIENCE) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    /// Why it ended: the last line of what it complains of.
    fn ended(&mut self) -> io::Error {
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => return error,
        };
        let mut text = String::new();
        if let Some(mut out) = self.child.stderr.take() {
            // A text that is not UTF-8 is left out.
            drop(out.read_to_string(&mut text));
        }
        let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty());
        let blamed = lines().rfind(|l| l.contains("ERROR") || l.contains("FATAL"));
        match blamed.or_else(|| lines().next_back()) {
            Some(line) => io::Error::other(format!("{line} ({status})")),
            None => io::Error::other(format!("it ended at once: {status}")),
        }
    }

    fn failed(&self, source: io::Error) -> BenchError {
        BenchError::Peer {
            program: self.program.clone(),
            source,
        }
    }
}

impl Drop for Peer {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, ready: Ready) -> Result<Peer, BenchError> {
        Peer::start(&Spec {
            program: "/bin/sh".into(),
            args: ["-c", script].map(OsString::from).to_vec(),
            ready,
        })
    }

    fn reason(result: Result<Peer, BenchError>) -> String {
        match result {
            Err(BenchError::Peer { source, .. }) => source.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_that_attaches_nothing_is_an_error() {
        assert!(reason(shell("true", Ready::Links(1))).contains("exit status: 0"));
    }

    #[test]
    fn one_that_complains_is_quoted() {
        let script = "echo 'ERROR: no such tracepoint' >&2; echo later >&2; exit 3";
        let told = reason(shell(script, Ready::Line("attached")));
        assert!(
            told.contains("no such tracepoint (exit status: 3)"),
            "{told}"
        );
    }

    #[test]
    fn one_that_prints_its_sign_is_attached() {
        let script = "echo Attaching; echo attached; exec sleep 100";
        shell(script, Ready::Line("attached"))
            .unwrap()
            .stop()
            .unwrap();
    }
}

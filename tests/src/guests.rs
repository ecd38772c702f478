//! Real KVM guests, by `headroom lab guests`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

/// Running guests; dropping them ends and removes them.
pub struct Guests {
    child: Child,
    /// (name, pid) of each.
    pub vms: Vec<(String, u32)>,
}

impl Guests {
    /// Starts guests with the given flags and waits until all run. Unless the
    /// flags name a weight, they outweigh everything else on the host, so that
    /// other load does not bend a test's figures.
    ///
    /// # Errors
    /// The lab failed; with what it said.
    pub fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let weight: &[&str] = match flags.contains(&"--weight") {
            true => &[],
            false => &["--weight", "3000"],
        };
        let mut child = Command::new(crate::headroom())
            .args(["lab", "guests"])
            .args(weight)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("stdout")?);
        let mut vms = Vec::new();
        for line in out.lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["started", name, "pid", pid, ..] => vms.push(((*name).to_owned(), pid.parse()?)),
                ["running", ..] => return Ok(Self { child, vms }),
                _ => {}
            }
        }
        let mut said = String::new();
        if let Some(mut err) = child.stderr.take() {
            err.read_to_string(&mut said)?;
        }
        bail!("lab guests: {}: {said}", child.wait()?)
    }

    /// Sends a QMP command such as `stop` or `cont` to a guest.
    ///
    /// # Errors
    /// The guest or its socket is gone, or it refuses.
    pub fn qmp(&self, name: &str, command: &str) -> anyhow::Result<()> {
        let pid = self
            .vms
            .iter()
            .find(|(n, _)| n == name)
            .context("no such guest")?
            .1;
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let socket = cmdline
            .split(|b| *b == 0)
            .find_map(|a| {
                std::str::from_utf8(a)
                    .ok()?
                    .strip_prefix("unix:")?
                    .split(',')
                    .next()
            })
            .context("no QMP socket")?;
        let mut stream = UnixStream::connect(socket)?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        lines.next().context("no greeting")??;
        for command in ["qmp_capabilities", command] {
            stream.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())?;
            loop {
                let line = lines.next().context("QMP closed")??;
                if line.contains("\"error\"") {
                    bail!("{command}: {line}");
                }
                if line.contains("\"return\"") {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

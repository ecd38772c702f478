//! The agent, as a process of the machine.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headroom_vmlab::message::{AGENT, AgentRun};
use rustix::process::{Pid, Signal, kill_process};

use crate::task::wait_for;

const CONFIG: &str = "/tmp/agent.toml";
const LABELS: &str = "/tmp/labels.toml";
const ROWS: &str = "/tmp/agent.rows";
const SAID: &str = "/tmp/agent.said";

/// Who the VMs belong to.
const OWNERS: &str = r#"
[defaults]
region = "north"
[[vm]]
glob = "vm1"
tenant = "acme"
project = "shop"
vm_type = "small"
"#;

/// Loading takes 1 s under TCG.
const ATTACH_LIMIT: Duration = Duration::from_secs(120);
/// The next whole second, and what TCG makes of it.
const FIRST_ROWS_LIMIT: Duration = Duration::from_secs(60);
const WINDOW_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A running agent with its probes attached, with windows of 1 s.
pub struct Agent {
    name: String,
    child: Child,
    /// What it writes, behind what was counted.
    rows: File,
    /// The beginning of a line.
    unread: String,
    windows: u64,
}

impl Agent {
    /// Starts it with that `agent.attach` and waits until it is attached and
    /// has measured each of these vCPU threads for a window.
    pub fn start(attach: &str, tids: &[u32]) -> anyhow::Result<Self> {
        let config =
            format!("[agent]\nattach = \"{attach}\"\nhost = \"vmlab\"\nlabels = \"{LABELS}\"\n");
        fs::write(CONFIG, config).context("write the agent's configuration")?;
        fs::write(LABELS, OWNERS).context("write the labels")?;
        let child = Command::new(AGENT)
            .args(["--print", "ndjson", "--interval", "1s", "--config", CONFIG])
            .stdin(Stdio::null())
            .stdout(File::create(ROWS)?)
            .stderr(File::create(SAID)?)
            .spawn()
            .context("start the agent")?;
        let mut agent = Self {
            name: attach.to_owned(),
            child,
            rows: File::open(ROWS)?,
            unread: String::new(),
            windows: 0,
        };
        wait_for("the agent to attach", ATTACH_LIMIT, || {
            ensure!(
                agent.child.try_wait()?.is_none() && !has("not attached"),
                "the agent did not attach"
            );
            Ok(has("attached").then_some(()))
        })?;
        wait_for("the agent's first rows", FIRST_ROWS_LIMIT, || {
            let rows = fs::read_to_string(ROWS)?;
            let measured = |tid: &u32| rows.contains(&format!("\"tid\":{tid},"));
            Ok(tids.iter().all(measured).then_some(()))
        })?;
        Ok(agent)
    }

    /// Waits until so many more windows are written.
    pub fn wait_for_windows(&mut self, count: u64) -> anyhow::Result<()> {
        self.windows()?;
        let until = self.windows + count;
        let limit = WINDOW_LIMIT + Duration::from_secs(2 * count);
        wait_for("windows of the agent", limit, || {
            // Looking costs little, but not nothing.
            std::thread::sleep(Duration::from_millis(20));
            self.windows()?;
            Ok((self.windows >= until).then_some(()))
        })
    }

    /// Counts what has been written since the last call: each window has one
    /// row of the host.
    fn windows(&mut self) -> anyhow::Result<()> {
        self.rows.read_to_string(&mut self.unread)?;
        let Some((whole, rest)) = self.unread.rsplit_once('\n') else {
            return Ok(());
        };
        let hosts = whole.lines().filter(|l| l.contains("\"table\":\"hosts\""));
        self.windows += u64::try_from(hosts.count())?;
        self.unread = rest.to_owned();
        Ok(())
    }

    /// Ends it by SIGTERM and gives all it wrote.
    pub fn stop(mut self) -> anyhow::Result<AgentRun> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("end the agent")?;
        let status = wait_for("the agent to end", STOP_LIMIT, || {
            Ok(self.child.try_wait()?)
        })?;
        let text = fs::read_to_string(ROWS).context("read the agent's rows")?;
        let rows: Result<_, _> = text.lines().map(serde_json::from_str).collect();
        Ok(AgentRun {
            name: self.name,
            said: said(),
            exit_code: status.code(),
            rows: rows.context("the agent's rows")?,
        })
    }
}

/// What the present or last agent has written to standard error.
pub fn said() -> Vec<String> {
    let text = fs::read_to_string(SAID).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn has(beginning: &str) -> bool {
    said().iter().any(|line| line.starts_with(beginning))
}

//! From an empty kernel to a system, and off again.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use headroom_vmlab::Scenario;
use headroom_vmlab::message::{MODULES, Message, PLAN};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

use crate::wire::Wire;
use crate::{agent, scenario};

/// File systems by type and place, as Debian's init mounts them.
const MOUNTS: [(&str, &str); 10] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tmpfs", "/dev/shm"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Carries out the scenario and powers the machine off, whatever happens.
pub fn run() -> anyhow::Result<()> {
    let carried_out = mount().and_then(|()| whole());
    if let Err(error) = carried_out {
        console(&format!("{error:#}"));
    }
    reboot(RebootCommand::PowerOff).context("power off")
}

/// A line on the kernel's console, for what has no other way out.
pub fn console(line: &str) {
    let _ = writeln!(std::io::stderr(), "headroom-vmguest: {line}");
}

/// Runs one of busybox's programs.
pub fn busybox(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("/bin/busybox")
        .args(args)
        .output()
        .context("start busybox")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?}: {}", said.trim());
    Ok(())
}

fn mount() -> anyhow::Result<()> {
    for (kind, place) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
        busybox(&["mount", "-t", kind, kind, place])?;
    }
    Ok(())
}

/// From here on there is a wire, and failures go there.
fn whole() -> anyhow::Result<()> {
    let mut wire = Wire::open()?;
    let release = uname().release().to_string_lossy().into_owned();
    wire.send(&Message::Begin { kernel: release })?;
    let error = prepared_and_run(&mut wire).err().map(|e| format!("{e:#}"));
    wire.send(&Message::End {
        error,
        agent: agent::said().join("\n"),
    })
}

fn prepared_and_run(wire: &mut Wire) -> anyhow::Result<()> {
    for path in fs::read_to_string(MODULES)?.lines() {
        load(path).with_context(|| format!("load {path}"))?;
    }
    let plan = fs::read_to_string(PLAN)?;
    let plan: Scenario = plan.parse().map_err(anyhow::Error::msg)?;
    scenario::run(plan, wire)
}

fn load(path: &str) -> anyhow::Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    finit_module(File::open(path)?, NO_PARAMETERS, 0)?;
    Ok(())
}

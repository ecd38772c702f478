//! `headroom doctor`: what this host offers, and the remedy of what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use headroom_agent::probe::{AttachPolicy, ProbeOptions, Probes};
use serde::Serialize;

use crate::config::DEFAULT_DATA_DIR;
use crate::output::{Format, say};

/// Oldest kernel that the probes are checked on.
const KERNEL_FLOOR: (u32, u32) = (6, 1);
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Flags of `headroom doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Data directory whose collector is asked
    #[arg(long, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Something less is measured, or a command is not to be had.
    Warning,
    Failure,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What to do; empty when nothing is.
    remedy: String,
}

/// Checks everything; exit code 1 when something fails.
///
/// # Errors
/// The list can't be printed.
pub async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut checks = vec![
        kernel(),
        btf(),
        capabilities(),
        probes(),
        schedstat(),
        pressure(),
        kvm(),
        qemu(),
        cgroup(),
        clock(),
    ];
    checks.push(collector(&args.data_dir).await);
    match args.output {
        Format::Table => checks.iter().for_each(line),
        Format::Json => say(&serde_json::to_string_pretty(&checks)?),
        Format::Ndjson => checks
            .iter()
            .try_for_each(|c| serde_json::to_string(c).map(|s| say(&s)))?,
        Format::Csv => {
            say("name,state,found,remedy");
            for c in &checks {
                let quoted = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
                say(&format!(
                    "{},{},{},{}",
                    c.name,
                    word(c.state),
                    quoted(&c.found),
                    quoted(&c.remedy)
                ));
            }
        }
    }
    let failed = checks.iter().any(|c| c.state == State::Failure);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn line(check: &Check) {
    say(&format!(
        "{:<8} {:<13} {}",
        word(check.state),
        check.name,
        check.found
    ));
    if !check.remedy.is_empty() {
        say(&format!("{:<8} {:<13} -> {}", "", "", check.remedy));
    }
}

const fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Failure => "failure",
    }
}

fn check(name: &'static str, bad: State, found: Result<String, String>, remedy: &str) -> Check {
    match found {
        Ok(found) => Check {
            name,
            state: State::Ok,
            found,
            remedy: String::new(),
        },
        Err(found) => Check {
            name,
            state: bad,
            found,
            remedy: remedy.to_owned(),
        },
    }
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|p| p.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let found = if version >= KERNEL_FLOOR {
        Ok(release)
    } else {
        Err(format!("{release} is older than 6.1"))
    };
    check(
        "kernel",
        State::Warning,
        found,
        "the probes are checked on 6.1 and later; without them schedstat is read",
    )
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    let found = fs::metadata(path)
        .map(|m| format!("{path}, {} bytes", m.len()))
        .map_err(|e| format!("{path}: {e}"));
    check(
        "btf",
        State::Failure,
        found,
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every Debian and Ubuntu kernel is)",
    )
}

fn capabilities() -> Check {
    let status = read("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| mask & (1 << cap) != 0;
    let found = match (has(CAP_SYS_ADMIN), has(CAP_BPF), has(CAP_PERFMON)) {
        (_, true, true) => Ok("CAP_BPF and CAP_PERFMON".to_owned()),
        (true, ..) => Ok("CAP_SYS_ADMIN".to_owned()),
        (_, bpf, perfmon) => Err(format!(
            "missing:{}{}",
            if bpf { "" } else { " CAP_BPF" },
            if perfmon { "" } else { " CAP_PERFMON" }
        )),
    };
    check(
        "capabilities",
        State::Failure,
        found,
        "run as root, or: setcap cap_bpf,cap_perfmon+ep $(command -v headroom)",
    )
}

fn probes() -> Check {
    let options = ProbeOptions {
        slots: 16,
        vms: 1,
        attach: AttachPolicy::Auto,
    };
    let found = Probes::attach(&options)
        .map(|p| {
            format!(
                "attached as {}, {} KiB of maps with 16 slots",
                p.source(),
                p.map_bytes() / 1024
            )
        })
        .map_err(|e| format!("{:#}", anyhow::Error::from(e)));
    check(
        "probes",
        State::Failure,
        found,
        "see the reason above; headroom goes on with schedstat until then",
    )
}

fn schedstat() -> Check {
    let found = read("/proc/self/schedstat")
        .filter(|s| s.split_whitespace().count() == 3)
        .map(|_| "/proc/PID/task/TID/schedstat".to_owned())
        .ok_or_else(|| "/proc/self/schedstat is missing".to_owned());
    check(
        "schedstat",
        State::Warning,
        found,
        "a kernel with CONFIG_SCHED_INFO=y gives the fallback when BPF can't be loaded",
    )
}

fn pressure() -> Check {
    let found = read("/proc/pressure/cpu")
        .map(|_| "/proc/pressure/cpu".to_owned())
        .ok_or_else(|| "no PSI".to_owned());
    check(
        "psi",
        State::Warning,
        found,
        "boot with psi=1; until then hosts.psi_cpu_some_ns is unavailable",
    )
}

fn kvm() -> Check {
    let found = fs::File::options().read(true).write(true).open("/dev/kvm");
    let found = found
        .map(|_| "/dev/kvm".to_owned())
        .map_err(|e| format!("/dev/kvm: {e}"));
    check(
        "kvm",
        State::Failure,
        found,
        "modprobe kvm_intel or kvm_amd, and enable virtualization in the firmware",
    )
}

fn qemu() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|d| d.join("qemu-system-x86_64"))
        .find(|p| p.is_file())
        .map(|p| p.display().to_string())
        .ok_or_else(|| "no qemu-system-x86_64 in PATH".to_owned());
    check(
        "qemu",
        State::Warning,
        found,
        "only `headroom lab` needs it: apt-get install qemu-system-x86",
    )
}

fn cgroup() -> Check {
    let found = if Path::new("/sys/fs/cgroup/cpu/cpu.shares").exists()
        || Path::new("/sys/fs/cgroup/cpu/tasks").exists()
    {
        Ok("v1 cpu controller".to_owned())
    } else {
        read("/sys/fs/cgroup/cgroup.controllers")
            .filter(|c| c.split_whitespace().any(|c| c == "cpu"))
            .map(|_| "v2 cpu controller".to_owned())
            .ok_or_else(|| "no cpu controller below /sys/fs/cgroup".to_owned())
    };
    check(
        "cgroup",
        State::Warning,
        found,
        "mount cgroup2 on /sys/fs/cgroup; VMs are then weighed apart, as libvirt does",
    )
}

fn clock() -> Check {
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "unknown".into());
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    // 2025-01-01: a clock before the first release is not set.
    let found = if seconds > 1_735_689_600 {
        Ok(source)
    } else {
        Err(format!("the clock says {seconds} s since 1970"))
    };
    check(
        "clock",
        State::Failure,
        found,
        "set the clock: systemctl enable --now systemd-timesyncd",
    )
}

async fn collector(data_dir: &Path) -> Check {
    let found = match crate::sql::live(data_dir).await {
        Some(client) => match client.status().await {
            Ok(s) if s.refusing.is_empty() => {
                Ok(format!("{} rows acked, {} files", s.acked_rows, s.files))
            }
            Ok(s) => Err(format!("refuses writes: {}", s.refusing)),
            Err(e) => Err(format!("{:#}", anyhow::Error::from(e))),
        },
        None => Err(format!("none runs on {}", data_dir.display())),
    };
    check(
        "collector",
        State::Warning,
        found,
        "start one: headroom up; or name its directory with --data-dir",
    )
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

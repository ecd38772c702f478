//! A stand-in for a VMM: a process with QEMU's name and command line whose one
//! "vCPU" does to memory and disks what it is told. The payload of the real
//! guests has no memory to speak of.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use crate::cgroup::Scope;
use crate::task::{by_name, wait_for};

/// Path that makes this program a stand-in.
pub const PROGRAM: &str = "/run/qemu-system-x86_64";

/// As QEMU names it.
const VCPU: &str = "CPU 0/KVM";

const PAGE: usize = 4096;

/// A running stand-in, seen from outside.
pub struct StandIn {
    /// Its cgroup.
    pub scope: Scope,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl StandIn {
    /// Starts one as `vmNUMBER` in a cgroup of its own.
    pub fn start(number: u32) -> anyhow::Result<Self> {
        fs::copy("/proc/self/exe", PROGRAM).context("copy this program")?;
        let name = format!("vm{number}");
        let mut child = Command::new(PROGRAM)
            .args(["-accel", "kvm", "-m", "256", "-smp", "1"])
            .args(["-name", &format!("guest={name},debug-threads=on")])
            .args(["-uuid", &format!("00000000-0000-4000-8000-{number:012}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the stand-in")?;
        let scope = Scope::create(number, &name)?;
        scope.add(child.id())?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            scope,
            child,
            orders: orders.context("its standard input")?,
            answers: BufReader::new(answers.context("its standard output")?),
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Thread of its one vCPU.
    pub fn vcpu(&self) -> anyhow::Result<u32> {
        wait_for("the stand-in's vCPU", Duration::from_secs(10), || {
            by_name(self.pid(), VCPU)
        })
    }

    /// Gives an order of [`obey`] and waits until it is done; false if the
    /// stand-in was killed over it.
    pub fn order(&mut self, order: &str) -> anyhow::Result<bool> {
        writeln!(self.orders, "{order}").context("give an order")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("hear of it")?;
        match answer.trim() {
            "done" => Ok(true),
            "" => Ok(false),
            other => bail!("{order}: {other}"),
        }
    }
}

/// The stand-in itself: obeys lines of standard input until it is closed.
pub fn run() -> anyhow::Result<()> {
    let vcpu = std::thread::Builder::new().name(VCPU.into());
    let vcpu = vcpu.spawn(|| -> anyhow::Result<()> {
        let mut memory = Vec::new();
        for line in io::stdin().lines() {
            let answer = match obey(&line?, &mut memory) {
                Ok(()) => "done".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            writeln!(io::stdout(), "{answer}")?;
        }
        Ok(())
    })?;
    vcpu.join().map_err(|_| anyhow!("the vCPU panicked"))?
}

/// `grow MIB`: takes memory and writes to each page. `walk`: writes to each
/// page again. `drop`: gives all of it back. `read DEVICE MIB`: reads through
/// the page cache. `spin SECONDS`: keeps its CPU busy and leaves memory alone.
fn obey(order: &str, memory: &mut Vec<Vec<u8>>) -> anyhow::Result<()> {
    let words: Vec<&str> = order.split_whitespace().collect();
    match words.as_slice() {
        ["grow", mib] => {
            memory.push(vec![0; mib.parse::<usize>()? << 20]);
            memory.last_mut().into_iter().for_each(|m| walk(m));
        }
        ["walk"] => memory.iter_mut().for_each(|m| walk(m)),
        ["drop"] => memory.clear(),
        ["read", device, mib] => {
            let bytes = mib.parse::<u64>()? << 20;
            let mut reader = File::open(device)?.take(bytes);
            io::copy(&mut reader, &mut io::sink())?;
        }
        ["spin", seconds] => {
            let end = Instant::now() + Duration::from_secs(seconds.parse()?);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        _ => bail!("no such order"),
    }
    Ok(())
}

fn walk(memory: &mut [u8]) {
    for page in memory.chunks_mut(PAGE) {
        page[0] = page[0].wrapping_add(1);
    }
    std::hint::black_box(memory);
}

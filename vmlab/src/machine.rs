//! The machine: QEMU with software emulation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::scenario::{DISK_BYTES, Disk, Shape};
use crate::{Kernel, LabError, Scenario};

/// A scenario takes 10 to 50 s on two CPUs; a machine with other work on it
/// may take some times that.
const LIMIT: Duration = Duration::from_secs(300);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Without IPv6, of which the kernel sends packets by itself: those of a tap
/// are counted one by one.
const CMDLINE: &str = "console=ttyS0 panic=-1 mitigations=off quiet ipv6.disable=1";
/// Lines of the console shown for a machine that failed.
const CONSOLE_TAIL: usize = 80;

/// How the kernel's SLIT calls the way to another node, local being 10.
const DISTANCE: u32 = 21;

/// A machine to be run.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) initrd: &'a Path,
    pub(crate) scenario: Scenario,
    /// For its disks and what it writes.
    pub(crate) dir: &'a Path,
}

impl Machine<'_> {
    /// Runs it until it powers itself off and gives what came over the wire.
    pub(crate) fn run(&self) -> Result<Output, LabError> {
        let path = self.dir.join("qemu.log");
        let log = File::create(&path).map_err(|e| LabError::io("write a log", &path, e))?;
        let mut command = self.command()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn();
        let mut child =
            Running(child.map_err(|e| LabError::io("start a program", Path::new("setpriv"), e))?);
        let end = Instant::now() + LIMIT;
        let mut disturbance = 0.0;
        while !child.ended()? {
            disturbance = child.waited_share().unwrap_or(disturbance);
            if Instant::now() > end {
                return Err(LabError::TimedOut {
                    seconds: LIMIT.as_secs(),
                    console: self.console(),
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(Output {
            wire: text(&self.wire_path()),
            console: self.console(),
            disturbance,
        })
    }

    fn command(&self) -> Result<Command, LabError> {
        let shape = self.scenario.shape();
        // It ends when the thread that started it does, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        let cpu = match shape.threads {
            1 => "max",
            _ => "max,vendor=GenuineIntel",
        };
        command.args(["-accel", "tcg,thread=multi,tb-size=256", "-cpu", cpu]);
        command.args(["-machine", "q35", "-nodefaults", "-display", "none"]);
        command.args(["-no-reboot", "-monitor", "none"]);
        command.args(["-m", &format!("{}M", shape.memory)]);
        command.args(["-smp", &cpus(shape)]);
        nodes(shape, &mut command);
        for (path, id) in [(self.console_path(), "console"), (self.wire_path(), "wire")] {
            let chardev = format!("file,id={id},path={}", path.display());
            command.args(["-chardev", &chardev, "-serial", &format!("chardev:{id}")]);
        }
        for (number, disk) in shape.disks.iter().enumerate() {
            self.disk(number, *disk, &mut command)?;
        }
        command.arg("-kernel").arg(&self.kernel.image);
        command.arg("-initrd").arg(self.initrd);
        // A panic ends the machine at once. Mitigations cost TCG a third of
        // its speed and change nothing that is measured.
        command.args(["-append", CMDLINE]);
        Ok(command)
    }

    fn disk(&self, number: usize, disk: Disk, command: &mut Command) -> Result<(), LabError> {
        let node = format!("disk{number}");
        let backend = match disk {
            Disk::Null { latency_ns } => {
                format!("driver=null-co,size={DISK_BYTES},latency-ns={latency_ns},read-zeroes=on")
            }
            Disk::File => {
                let path = self.dir.join(&node);
                let made = File::create(&path).and_then(|f| f.set_len(DISK_BYTES));
                made.map_err(|e| LabError::io("make a disk", &path, e))?;
                format!("driver=file,filename={}", path.display())
            }
        };
        // One that polls would take requests before it was told of them.
        let thread = format!("iothread,id=thread{number},poll-max-ns=0");
        let device = format!("virtio-blk-pci,drive={node},iothread=thread{number}");
        command.args(["-object", &thread]);
        command.args(["-blockdev", &format!("{backend},node-name={node}")]);
        command.args(["-device", &device]);
        Ok(())
    }

    fn console_path(&self) -> PathBuf {
        self.dir.join("console")
    }

    fn wire_path(&self) -> PathBuf {
        self.dir.join("wire")
    }

    /// The end of the console, and what QEMU itself said.
    fn console(&self) -> String {
        let text = text(&self.dir.join("qemu.log")) + &text(&self.console_path());
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(CONSOLE_TAIL)..].join("\n")
    }
}

/// What a machine left.
pub(crate) struct Output {
    /// Its messages.
    pub(crate) wire: String,
    /// The end of its console.
    pub(crate) console: String,
    /// See [`crate::Report::disturbance`].
    pub(crate) disturbance: f64,
}

/// A socket for each node, and cores of so many threads.
fn cpus(shape: Shape) -> String {
    let (sockets, threads) = (shape.nodes, shape.threads);
    let cores = shape.cpus / sockets / threads;
    format!(
        "{},sockets={sockets},cores={cores},threads={threads}",
        shape.cpus
    )
}

/// Memory and CPUs evenly over the nodes, each as far from each other.
fn nodes(shape: Shape, command: &mut Command) {
    if shape.nodes < 2 {
        return;
    }
    let (memory, cpus) = (shape.memory / shape.nodes, shape.cpus / shape.nodes);
    for node in 0..shape.nodes {
        let (first, last) = (node * cpus, node * cpus + cpus - 1);
        let backend = format!("memory-backend-ram,id=memory{node},size={memory}M");
        let numa = format!("node,nodeid={node},memdev=memory{node},cpus={first}-{last}");
        command.args(["-object", &backend, "-numa", &numa]);
    }
    for a in 0..shape.nodes {
        for b in a + 1..shape.nodes {
            command.args(["-numa", &format!("dist,src={a},dst={b},val={DISTANCE}")]);
        }
    }
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

struct Running(Child);

impl Running {
    fn ended(&mut self) -> Result<bool, LabError> {
        let status = self.0.try_wait();
        status
            .map(|s| s.is_some())
            .map_err(|e| LabError::io("wait for a program", Path::new("setpriv"), e))
    }

    /// Of the time in which its threads wanted a CPU, the share in which they
    /// had to wait for one.
    #[expect(clippy::cast_precision_loss, reason = "ns of some minutes")]
    fn waited_share(&self) -> Option<f64> {
        let (mut run, mut wait) = (0, 0);
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id())).ok()? {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            let mut fields = text.split_whitespace().map(str::parse::<u64>);
            run += fields.next()?.ok()?;
            wait += fields.next()?.ok()?;
        }
        Some(wait as f64 / (run + wait).max(1) as f64)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

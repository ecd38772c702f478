//! Processes to look at: real ones, in a CPU cgroup that outweighs the rest of
//! the machine, so that other load does not bend the shares.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

/// A child process, killed when dropped.
pub struct Process(Child);

impl Process {
    /// Uses its CPU without a single system call.
    pub fn busy() -> Self {
        Self::spawn("while :; do :; done")
    }

    /// Sleeps for longer than any test.
    pub fn sleeping() -> Self {
        Self::spawn("exec sleep 600")
    }

    /// Sleeps and wakes all the time.
    pub fn napping() -> Self {
        Self::spawn("while :; do sleep 0.001; done")
    }

    fn spawn(script: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub fn tid(&self) -> u32 {
        self.0.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Lets it run on one CPU only.
    pub fn pin(&self, cpu: usize) {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(Some(self.pid()), &set).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Its name, `sh` until it becomes another program.
    pub fn name(&self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.tid())).unwrap();
        name.trim().to_owned()
    }

    /// The state letter of /proc.
    pub fn state(&self) -> char {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.tid())).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.chars().next().unwrap()
    }

    /// Waited for a CPU and got it, ns: field 2 of schedstat.
    pub fn run_delay(&self) -> u64 {
        let path = format!("/proc/{0}/task/{0}/schedstat", self.tid());
        let text = fs::read_to_string(path).unwrap();
        text.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup with the largest CPU weight there is, removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where no CPU controller is writable.
    pub fn heaviest(name: &str) -> Option<Self> {
        let tries = [
            ("/sys/fs/cgroup/cpu", "cpu.shares", "262144"),
            ("/sys/fs/cgroup", "cpu.weight", "10000"),
        ];
        for (root, file, weight) in tries {
            let dir = Path::new(root).join(format!("headroom-test-{}-{name}", std::process::id()));
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let made = Self(dir);
            if made.0.join(file).exists() && fs::write(made.0.join(file), weight).is_ok() {
                return Some(made);
            }
        }
        println!("note: no writable CPU cgroup, other load may bend the shares");
        None
    }

    /// Lets the group run for `quota` of every `period`, µs.
    pub fn quota(&self, quota: u32, period: u32) {
        if self.0.join("cpu.max").exists() {
            fs::write(self.0.join("cpu.max"), format!("{quota} {period}")).unwrap();
        } else {
            fs::write(self.0.join("cpu.cfs_period_us"), period.to_string()).unwrap();
            fs::write(self.0.join("cpu.cfs_quota_us"), quota.to_string()).unwrap();
        }
    }

    pub fn add(&self, process: &Process) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.tid().to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel needs a moment after the last process is gone.
        let _ = wait_for(|| fs::remove_dir(&self.0).is_ok());
    }
}

/// Polls until `done`, 10 s at most; whether it came true.
#[must_use]
pub fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

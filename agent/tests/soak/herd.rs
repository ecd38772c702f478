//! Guests as this process makes and ends them.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::bare::{ENTRY, PLAN, Plan};
use crate::{proc, wait};

/// Makes guests.
pub struct Herd {
    program: PathBuf,
    vcpus: usize,
    plan: Plan,
    // The link that `program` is; removed when dropped.
    _dir: TempDir,
}

/// A guest, killed when dropped.
pub struct Bare {
    child: Child,
    /// Its number in the herd.
    pub index: usize,
}

impl Herd {
    pub fn new(vcpus: usize, plan: Plan) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        // By this name the process shows as QEMU, in its comm as well.
        let program = dir.path().join("qemu-system-x86_64");
        symlink(std::env::current_exe().expect("this program"), &program).expect("link");
        Self {
            program,
            vcpus,
            plan,
            _dir: dir,
        }
    }

    /// Starts a guest; returns before its vCPUs run.
    pub fn start(&self, index: usize) -> Bare {
        let mut command = Command::new(&self.program);
        command
            .args(["--exact", "--nocapture", "--test-threads=1", ENTRY, "--"])
            .args(["-name", &format!("guest={},debug-threads=on", name(index))])
            .args(["-uuid", &uuid(index)])
            .env(PLAN, self.plan.text(self.vcpus))
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Bare {
            child: command.spawn().expect("guest"),
            index,
        }
    }

    /// Starts that many guests and waits for all their vCPUs.
    pub fn start_all(&self, count: usize) -> Vec<Bare> {
        let guests: Vec<Bare> = (0..count).map(|n| self.start(n)).collect();
        for guest in &guests {
            wait("vCPU threads", || guest.vcpus().len() == self.vcpus);
        }
        guests
    }
}

impl Bare {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Thread ids of the vCPUs.
    pub fn vcpus(&self) -> Vec<u32> {
        let threads = proc::threads(self.pid()).into_iter();
        threads
            .filter(|(_, name)| name.starts_with("CPU "))
            .map(|(tid, _)| tid)
            .collect()
    }

    /// Ends its process the orderly way.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("wait").success());
    }

    /// Ends its process at once, by SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Name of a guest: no other process's guests have it.
pub fn name(index: usize) -> String {
    format!("{}{index}", prefix())
}

/// UUID of a guest.
pub fn uuid(index: usize) -> String {
    format!("{:08x}-0000-4000-8000-{index:012x}", std::process::id())
}

/// Number of the guest of that name; `None` for those of others.
pub fn index(name: &str) -> Option<usize> {
    name.strip_prefix(&prefix())?.parse().ok()
}

fn prefix() -> String {
    format!("bare-{}-", std::process::id())
}

//! Stops one thread of a VM and no other.

use std::process::{Child, Command, Stdio};

use headroom_tests::require::lacks;

/// The thread and a real-time spinner share a CPU that nothing else of the VM
/// may use. SIGSTOP would stop the whole process, and a frozen thread is not
/// woken at all.
pub struct Stall(Child);

impl Stall {
    /// `None`, with the reason printed, where there is one CPU or no real-time
    /// scheduling.
    pub fn begin(pid: u32, comm: &str) -> Option<Self> {
        if std::thread::available_parallelism().unwrap().get() < 2 {
            lacks("cpus", "a stall of one thread needs two CPUs");
            return None;
        }
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let tid = entry.unwrap().file_name().into_string().unwrap();
            let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
            let stalls = name.is_ok_and(|name| name.trim_end() == comm);
            let cpu = if stalls { "1" } else { "0" };
            let mut pin = Command::new("taskset");
            // QEMU's kernel threads can't be moved, and need not.
            let _ = pin
                .args(["-cp", cpu, &tid])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        // Ends by itself if the test is killed.
        let mut spin = Command::new("timeout");
        spin.args(["10", "chrt", "-f", "50", "taskset", "-c", "1"]);
        spin.args(["sh", "-c", "while :; do :; done"]);
        let mut child = spin
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        if child.try_wait().unwrap().is_some() {
            lacks("realtime", "no real-time scheduling here");
            return None;
        }
        Some(Self(child))
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        // SIGTERM: timeout hands it on to the spinner.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

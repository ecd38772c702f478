//! A real KVM guest that spins: one instruction of payload.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Killed when dropped.
pub struct Guest {
    child: Child,
    dir: TempDir,
}

impl Guest {
    /// Starts a guest whose vCPU 0 spins and whose other vCPUs are never
    /// woken; returns once their threads are there.
    pub fn start(name: &str, vcpus: usize) -> Self {
        Self::start_with(name, vcpus, "")
    }

    /// As [`Self::start`], with further arguments of QEMU.
    pub fn start_with(name: &str, vcpus: usize, arguments: &str) -> Self {
        let guest = Self::run(name, vcpus, &format!("on {arguments}"));
        wait("vCPU threads", || guest.tids("CPU ").len() == vcpus);
        // The threads wait until the machine is set up.
        let spins = guest.tids("CPU 0/")[0];
        wait("the guest to spin", || {
            guest.schedstat(spins).0 > 20_000_000
        });
        guest
    }

    /// Starts such a guest, with or without (`off`) names for its threads.
    pub fn launch(name: &str, vcpus: usize, debug_threads: &str) -> Self {
        Self::run(name, vcpus, debug_threads)
    }

    /// `last` ends the command line: the value of `debug-threads`, and more.
    fn run(name: &str, vcpus: usize, last: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        // A 64 KiB BIOS ends at 4 GiB; the reset vector is 16 bytes below:
        // jmp $, in real mode.
        let mut rom = vec![0u8; 1 << 16];
        rom[0xfff0..0xfff2].copy_from_slice(&[0xeb, 0xfe]);
        std::fs::write(dir.path().join("spin.rom"), rom).expect("rom");
        // The limit ends a guest whose test was killed. The shell executes
        // QEMU in its own process, as launchers do.
        let script = format!(
            "ulimit -t 300; exec qemu-system-x86_64 -accel kvm -machine pc -m 16 -smp {vcpus} -nodefaults -display none \
             -no-reboot -bios spin.rom -qmp unix:qmp,server=on,wait=off -name guest={name},debug-threads={last}"
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        Self {
            child: command.spawn().expect("sh"),
            dir,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Threads whose name starts so.
    pub fn tids(&self, prefix: &str) -> Vec<u32> {
        let dir = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let tids = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let named = |path: PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|c| c.starts_with(prefix))
        };
        let tids = tids
            .filter(|e| named(e.path()))
            .filter_map(|e| e.file_name().to_str()?.parse().ok());
        let mut tids: Vec<u32> = tids.collect();
        tids.sort_unstable();
        tids
    }

    /// Sends SIGSTOP or SIGCONT and waits until all threads obey.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("kill");
        let stop = signal == Signal::STOP;
        wait("the signal to work", || {
            self.tids("").iter().all(|tid| self.stopped(*tid) == stop)
        });
    }

    /// Runs a command without arguments over QMP.
    pub fn qmp(&self, command: &str) {
        let stream = UnixStream::connect(self.dir.path().join("qmp")).expect("qmp");
        let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines();
        let mut call = |text: &str| {
            writeln!(&stream, "{{\"execute\": \"{text}\"}}").expect("write");
            // Events may come between.
            lines
                .find(|l| l.as_ref().is_ok_and(|l| l.contains("\"return\"")))
                .expect("answer")
                .expect("read");
        };
        call("qmp_capabilities");
        call(command);
    }

    /// Run and run-queue latency by the kernel's own account, ns.
    pub fn schedstat(&self, tid: u32) -> (u64, u64) {
        let text = std::fs::read_to_string(format!("/proc/{}/task/{tid}/schedstat", self.pid()))
            .expect("schedstat");
        let mut fields = text.split_whitespace().map(|f| f.parse().expect("number"));
        (fields.next().expect("run"), fields.next().expect("delay"))
    }

    fn stopped(&self, tid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid()))
            .unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, bounded.
pub fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited 30 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! Disks of known speed: loop devices on a file, which may be one that answers
//! late.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait;

const BYTES: u64 = 16 << 20;

/// A loop device; given back when dropped.
pub struct Disk {
    device: PathBuf,
    slow: Option<Late>,
    _dir: TempDir,
}

/// The process behind a file that answers late.
struct Late(Child);

impl Disk {
    /// On a file of the host's own disk, past its page cache.
    pub fn fast() -> Result<Self, String> {
        Self::make(None)
    }

    /// Each request takes `delay` at least: QEMU's null disk behind a FUSE file.
    pub fn slow(delay: Duration) -> Result<Self, String> {
        Self::make(Some(delay))
    }

    fn make(delay: Option<Duration>) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("disk.img");
        std::fs::write(&file, vec![0x5a; usize::try_from(BYTES).expect("size")]).expect("disk");
        let slow = delay.map(|d| Late::start(&file, d)).transpose()?;
        let file = file.display().to_string();
        let device = run("losetup", &["--find", "--show", "--direct-io=on", &file])?;
        Ok(Self {
            device: device.trim().into(),
            slow,
            _dir: dir,
        })
    }

    /// Its device file.
    pub fn path(&self) -> &Path {
        &self.device
    }

    /// Its name in rows.
    pub fn name(&self) -> &str {
        let name = self.device.file_name().and_then(|n| n.to_str());
        name.expect("a device name")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let device = self.device.display().to_string();
        let _ = run("losetup", &["--detach", &device]);
        // The last user of the device may be a guest that dies at this moment.
        let gone = |path: String| {
            std::fs::read_to_string(path).map_or(true, |text| text.trim().is_empty())
        };
        let name = self.name().to_owned();
        wait("the loop device to be free", || {
            gone(format!("/sys/block/{name}/loop/backing_file"))
        });
        drop(self.slow.take());
    }
}

impl Late {
    fn start(file: &Path, delay: Duration) -> Result<Self, String> {
        let node = format!(
            "driver=null-co,node-name=n,size={BYTES},read-zeroes=on,latency-ns={}",
            delay.as_nanos()
        );
        let export = format!(
            "type=fuse,id=e,node-name=n,mountpoint={},writable=on",
            file.display()
        );
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args(["--blockdev", &node, "--export", &export])
            .stdin(Stdio::null());
        let child = command
            .spawn()
            .map_err(|e| format!("qemu-storage-daemon: {e}"))?;
        let mut late = Self(child);
        let mounted = || {
            std::fs::read_to_string("/proc/self/mounts")
                .is_ok_and(|mounts| mounts.contains(&*file.to_string_lossy()))
        };
        let mut ended = false;
        wait("the FUSE file", || {
            ended = late.0.try_wait().expect("wait").is_some();
            ended || mounted()
        });
        match ended {
            true => Err("qemu-storage-daemon exports no FUSE file here".to_owned()),
            false => Ok(late),
        }
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        // It unmounts the file at its orderly end. A signal that comes before
        // its main loop waits is lost on it: asked again until it ends.
        for _ in 0..100 {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            std::thread::sleep(Duration::from_millis(50));
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Output of a program.
pub fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {args:?}: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

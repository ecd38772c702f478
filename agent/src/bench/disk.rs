//! Single reads of a loop device over memory: what the block hooks cost, at a
//! disk faster than any real one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of a read; buffer and offset must be multiples of the sector.
const READ: usize = 4096;
/// Size of the device.
const BYTES: u64 = 16 << 20;
/// A tmpfs on every distribution.
const MEMORY: &str = "/dev/shm";

/// A loop device, detached when dropped.
pub struct Disk {
    // Closed first: only then does the detaching take effect.
    file: Option<File>,
    device: PathBuf,
    buffer: Vec<u8>,
    start: usize,
    next: u64,
}

impl Disk {
    /// Makes the device.
    ///
    /// # Errors
    /// No tmpfs, no `losetup` or no loop devices here.
    pub fn start() -> io::Result<Self> {
        let name = format!("headroom-bench.{}", std::process::id());
        let image = Path::new(MEMORY).join(name);
        let device = attach(&image);
        // The loop device keeps the file.
        drop(fs::remove_file(&image));
        let mut disk = Self {
            file: None,
            device: device?,
            buffer: vec![0; READ * 2],
            start: 0,
            next: 0,
        };
        disk.start = disk.buffer.as_ptr().align_offset(READ);
        disk.file = Some(
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECT)
                .open(&disk.device)?,
        );
        Ok(disk)
    }

    /// Reads one block after the other, each when the one before is there.
    ///
    /// # Errors
    /// The device is gone.
    pub fn run(&mut self, reads: u32) -> io::Result<Duration> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let end = self.start + READ;
        let buffer = self
            .buffer
            .get_mut(self.start..end)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let start = Instant::now();
        for _ in 0..reads {
            file.read_exact_at(buffer, self.next)?;
            self.next = (self.next + READ as u64) % BYTES;
        }
        Ok(start.elapsed())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.file = None;
        if let Err(error) = losetup(["--detach".as_ref(), self.device.as_os_str()]) {
            let device = self.device.display().to_string();
            let error = error.to_string();
            tracing::warn!(device, error, "loop device not detached");
        }
    }
}

fn attach(image: &Path) -> io::Result<PathBuf> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(image)?;
    file.set_len(BYTES)?;
    let name = losetup(["--find".as_ref(), "--show".as_ref(), image.as_os_str()])?;
    Ok(name.trim().into())
}

fn losetup<const N: usize>(args: [&std::ffi::OsStr; N]) -> io::Result<String> {
    let out = Command::new("losetup").args(args).output()?;
    if !out.status.success() {
        let told = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        return Err(io::Error::other(told));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_and_taken_away() {
        let mut disk = match Disk::start() {
            Ok(disk) => disk,
            Err(error) => {
                headroom_tests::require::lacks("loop", error);
                return;
            }
        };
        let name = disk.device.file_name().unwrap().to_owned();
        let reads = || {
            let path = Path::new("/sys/block").join(&name).join("stat");
            let text = fs::read_to_string(path).unwrap();
            text.split_whitespace()
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let before = reads();
        assert!(disk.run(100).unwrap() > Duration::ZERO);
        assert!(reads() >= before + 100);
    }
}

//! A guest whose firmware reads or writes the first sector of its disk for
//! ever.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// How QEMU is to do the guest's I/O.
pub struct Disk {
    pub file: PathBuf,
    /// `cache=none,aio=native` and the like.
    pub options: String,
}

/// Killed when dropped.
pub struct Guest {
    child: Child,
    cgroup: Option<PathBuf>,
    _dir: TempDir,
}

impl Guest {
    /// Starts one that reads.
    pub fn reading(name: &str, disk: &Disk) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("disk.rom"), rom()).expect("rom");
        // The limit ends a guest whose test was killed.
        let script = format!(
            "ulimit -t 120; exec qemu-system-x86_64 -accel kvm -machine pc -m 16 -nodefaults \
             -display none -no-reboot -name guest={name},debug-threads=on -bios disk.rom \
             -drive if=ide,format=raw,file={},{}",
            disk.file.display(),
            disk.options
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .current_dir(dir.path())
            .stdin(Stdio::null());
        Self {
            child: command.spawn().expect("sh"),
            cgroup: None,
            _dir: dir,
        }
    }

    /// Gives it a cgroup for block I/O of its own; false where there is none.
    pub fn own_cgroup(&mut self, name: &str) -> bool {
        let roots = ["/sys/fs/cgroup/blkio", "/sys/fs/cgroup"];
        let Some(root) = roots
            .iter()
            .map(Path::new)
            .find(|r| r.join("cgroup.procs").exists())
        else {
            return false;
        };
        let dir = root.join(format!("headroom-{}-{name}", std::process::id()));
        let pid = self.child.id().to_string();
        let made = std::fs::create_dir(&dir).is_ok();
        self.cgroup = made.then(|| dir.clone());
        made && std::fs::write(dir.join("cgroup.procs"), pid).is_ok()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(dir) = &self.cgroup {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Real mode, from the reset vector at the end of 64 KiB.
fn rom() -> Vec<u8> {
    const READ: &[u8] = &[
        0xba, 0xf6, 0x01, 0xb0, 0xe0, 0xee, // out 0x1f6, 0xe0: first disk, LBA
        0xba, 0xf2, 0x01, 0xb0, 0x01, 0xee, // out 0x1f2, 1: one sector
        0x42, 0x30, 0xc0, 0xee, // out 0x1f3, 0: number 0
        0x42, 0xee, 0x42, 0xee, // out 0x1f4, 0; out 0x1f5, 0
        0xba, 0xf7, 0x01, 0xb0, 0x20, 0xee, // out 0x1f7, 0x20: read
        0xec, 0xa8, 0x80, 0x75, 0xfb, // while in(0x1f7) & 0x80 (busy)
        0xa8, 0x08, 0x74, 0xdd, // no data: again from the start
        0xba, 0xf0, 0x01, 0xb9, 0x00, 0x01, // 256 words from 0x1f0
        0xed, 0xe2, 0xfd, // in ax, dx; loop
        0xeb, 0xd2, // again from the start
    ];
    let mut rom = vec![0u8; 1 << 16];
    rom[..READ.len()].copy_from_slice(READ);
    // jmp f000:0000
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    rom
}

//! A real shortage: a cgroup with a limit, a swap device of its own, and a KVM
//! guest that touches more memory than both hold.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use headroom_tests::require::lacks;
use tempfile::TempDir;

/// A cgroup with a memory limit, and one of the second hierarchy for pressure
/// where the two are apart; removed on drop.
pub struct Group {
    dirs: Vec<PathBuf>,
    v2: bool,
}

impl Group {
    /// A fresh group; `None` where none can be made.
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "headroom-memory-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let (v1, v2) = mounts();
        let parents: Vec<PathBuf> = v1.iter().chain(&v2).map(|m| m.join(&name)).collect();
        let group = Self {
            dirs: parents,
            v2: v1.is_none(),
        };
        for dir in &group.dirs {
            if let Err(error) = fs::create_dir(dir) {
                lacks("cgroup", format_args!("{}: {error}", dir.display()));
                return None;
            }
        }
        let file = group.dirs.first().map(|d| d.join(group.limit_file()));
        if !file.is_some_and(|f| f.exists()) {
            lacks("cgroup", "no memory controller for a new cgroup");
            return None;
        }
        Some(group)
    }

    /// Sets the limit.
    pub fn limit(&self, bytes: u64) {
        fs::write(self.dirs[0].join(self.limit_file()), bytes.to_string()).expect("limit");
    }

    /// Lets nothing more of the group go to swap: what is there stays.
    pub fn forbid_swap(&self) {
        let file = if self.v2 {
            "memory.swap.max"
        } else {
            "memory.swappiness"
        };
        fs::write(self.dirs[0].join(file), "0").expect("swap limit");
    }

    /// A shell's line that puts the shell into the groups.
    pub fn enter(&self) -> String {
        let line = |d: &PathBuf| format!("echo $$ > {}/cgroup.procs; ", d.display());
        self.dirs.iter().map(line).collect()
    }

    fn limit_file(&self) -> &'static str {
        if self.v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The last process may still be on its way out.
            let deadline = Instant::now() + Duration::from_secs(10);
            while fs::remove_dir(dir).is_err() && dir.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Where the memory controller of version 1 and the second hierarchy are.
fn mounts() -> (Option<PathBuf>, Option<PathBuf>) {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let point = |kind: &str, option: &str| {
        let line = text.lines().find(|l| {
            l.split_once(" - ")
                .is_some_and(|(_, fs)| fs.starts_with(&format!("{kind} ")) && fs.ends_with(option))
        })?;
        line.split(' ').nth(4).map(PathBuf::from)
    };
    (point("cgroup", ",memory"), point("cgroup2", ""))
}

/// A zram device of our own in use as swap; taken away on drop.
pub struct Swap {
    number: u32,
    on: bool,
}

impl Swap {
    /// Adds one; `None` where that cannot be done.
    pub fn new(bytes: u64) -> Option<Self> {
        let added = fs::read_to_string("/sys/class/zram-control/hot_add");
        let number = match added {
            Ok(text) => text.trim().parse().expect("device number"),
            Err(error) => {
                lacks("zram", error);
                return None;
            }
        };
        let mut swap = Self { number, on: false };
        let size = swap.sys().join("disksize");
        fs::write(&size, bytes.to_string()).expect("disksize");
        swap.on = swap.run("mkswap") && swap.run("swapon");
        if !swap.on {
            lacks("zram", "mkswap or swapon failed");
            return None;
        }
        Some(swap)
    }

    fn sys(&self) -> PathBuf {
        format!("/sys/block/zram{}", self.number).into()
    }

    fn run(&self, program: &str) -> bool {
        let mut command = Command::new(program);
        let command = command.arg(format!("/dev/zram{}", self.number));
        command
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if self.on {
            self.run("swapoff");
        }
        // Somebody who scans block devices may have it open for a moment.
        for _ in 0..100 {
            let number = self.number.to_string();
            if fs::write("/sys/class/zram-control/hot_remove", number).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Files of one page each in a file system in memory, every second of which is
/// gone again: half of the memory is free, in single pages. Unmounted on drop.
pub struct Fragments(TempDir);

impl Fragments {
    /// Fills all but 128 MiB of a small host, such as a virtual machine;
    /// `None` on a larger one.
    pub fn new() -> Option<Self> {
        const PAGE: [u8; 4096] = [1; 4096];
        if meminfo("MemTotal") > 1536 << 20 {
            lacks(
                "small_host",
                "this host has more than 1.5 GiB of memory: fragmenting it takes too much",
            );
            return None;
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=100%,nr_inodes=0", "none"]);
        let mounted = mount.arg(dir.path()).status();
        let fragments = Self(dir);
        if !mounted.is_ok_and(|s| s.success()) {
            lacks("tmpfs", "it can't be mounted");
            return None;
        }
        let file = |n: u32| fragments.0.path().join(n.to_string());
        let mut files = 0;
        while files % 256 != 0 || meminfo("MemAvailable") > 128 << 20 {
            fs::write(file(files), PAGE).expect("file");
            files += 1;
        }
        for n in (0..files).step_by(2) {
            fs::remove_file(file(n)).expect("file");
        }
        Some(fragments)
    }
}

impl Drop for Fragments {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A figure of `/proc/meminfo`, bytes.
fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    let kib = line.and_then(|l| l.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a figure") * 1024
}

/// Memory of the guest, all of which its vCPU writes to, over and over.
pub const GUEST_BYTES: u64 = 320 << 20;

/// Offset of [`WALK`] in the 64 KiB firmware.
const AT: usize = 0xff00;

/// Firmware that enters protected mode and writes a word into each page from
/// 1 MiB to 320 MiB, again and again:
/// `cli; lgdt cs:[0xff50]; cr0 |= 1; ljmp 8:pm; pm: ds = 0x10;
/// walk: edi = 1 MiB; page: [edi] = edi; out 0x80, al; edi += 4096;
/// if edi < 320 MiB goto page; goto walk`, then the descriptors, whose
/// accessed bits are set, for they lie in a ROM.
const WALK: [u8; 0x56] = [
    0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0x50, 0xff, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0,
    0x66, 0xea, 0x18, 0xff, 0xff, 0xff, 0x08, 0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0xbf, 0x00,
    0x00, 0x10, 0x00, 0x89, 0x3f, 0xe6, 0x80, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x81, 0xff, 0x00,
    0x00, 0x00, 0x14, 0x72, 0xee, 0xeb, 0xe7, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00,
    0x17, 0x00, 0x38, 0xff, 0xff, 0xff,
];

/// A guest in a group, paused until it is let go; killed on drop.
pub struct Guest {
    child: Child,
    dir: TempDir,
}

impl Guest {
    /// Starts it; `None` where there can be no guests.
    pub fn start(name: &str, group: &Group) -> Option<Self> {
        for program in ["/dev/kvm", "/usr/bin/qemu-system-x86_64"] {
            if !Path::new(program).exists() {
                lacks("kvm", format_args!("no {program}"));
                return None;
            }
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let mut rom = vec![0u8; 1 << 16];
        rom[AT..AT + WALK.len()].copy_from_slice(&WALK);
        // The reset vector: jmp AT.
        rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0xff]);
        fs::write(dir.path().join("walk.rom"), rom).expect("rom");
        // The limit ends a guest whose test was killed.
        let script = format!(
            "{}ulimit -t 120; exec qemu-system-x86_64 -accel kvm -machine pc -m 320 -nodefaults -display none -S \
             -no-reboot -name guest={name},debug-threads=on -bios walk.rom -qmp unix:qmp,server=on,wait=off",
            group.enter()
        );
        let mut command = Command::new("sh");
        let command = command.args(["-c", &script]).current_dir(dir.path());
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        Some(Self { child, dir })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets its vCPU run.
    pub fn go(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let stream = loop {
            match UnixStream::connect(self.dir.path().join("qmp")) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "qmp: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines();
        for command in ["qmp_capabilities", "cont"] {
            writeln!(&stream, "{{\"execute\": \"{command}\"}}").expect("write");
            lines
                .find(|l| l.as_ref().is_ok_and(|l| l.contains("\"return\"")))
                .expect("answer")
                .expect("read");
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

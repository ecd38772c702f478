//! Reads of `/proc`. `None` means that the process or thread is gone or does
//! not show the file to us.

use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use crate::files;

/// A numbered directory of `/proc` or of `/proc/P/task`.
pub(super) struct Entry {
    /// Its number: a pid or tid.
    pub id: u32,
    /// Inode number. The kernel gives a new process a new one, so that an
    /// equal pair (id, inode) is the same process without another system
    /// call; a changed inode may also mean that memory was reclaimed.
    pub inode: u64,
}

/// Fields of `/proc/P/stat` or of a thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub kernel_thread: bool,
    pub start_ticks: u64,
}

/// A `/proc`, the real one or a test's.
pub(super) struct Proc {
    root: PathBuf,
}

impl Proc {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn boot_id(&self) -> Option<String> {
        files::line(self.root.join("sys/kernel/random/boot_id"))
    }

    pub fn processes(&self) -> Vec<Entry> {
        numbered(&self.root)
    }

    pub fn threads(&self, pid: u32) -> Vec<Entry> {
        numbered(&self.root.join(format!("{pid}/task")))
    }

    pub fn comm(&self, pid: u32) -> Option<String> {
        files::line(self.root.join(format!("{pid}/comm")))
    }

    pub fn thread_comm(&self, pid: u32, tid: u32) -> Option<String> {
        files::line(self.root.join(format!("{pid}/task/{tid}/comm")))
    }

    pub fn stat(&self, pid: u32) -> Option<Stat> {
        parse_stat(&files::line(self.root.join(format!("{pid}/stat")))?)
    }

    pub fn thread_stat(&self, pid: u32, tid: u32) -> Option<Stat> {
        parse_stat(&files::line(
            self.root.join(format!("{pid}/task/{tid}/stat")),
        )?)
    }

    pub fn cmdline(&self, pid: u32) -> Option<Vec<u8>> {
        std::fs::read(self.root.join(format!("{pid}/cmdline"))).ok()
    }

    /// Path of the executable; needs ptrace access, so mostly only before the
    /// capabilities are dropped.
    pub fn exe(&self, pid: u32) -> Option<String> {
        let path = std::fs::read_link(self.root.join(format!("{pid}/exe"))).ok()?;
        path.into_os_string().into_string().ok()
    }
}

fn numbered(dir: &Path) -> Vec<Entry> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let entry = |e: std::fs::DirEntry| {
        Some(Entry {
            id: e.file_name().to_str()?.parse().ok()?,
            inode: e.ino(),
        })
    };
    entries.flatten().filter_map(entry).collect()
}

/// Fields are counted from the last `)`: a comm may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    /// PF_KTHREAD of include/linux/sched.h.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let flags: u64 = fields.nth(6)?.parse().ok()?;
    let start_ticks = fields.nth(12)?.parse().ok()?;
    Some(Stat {
        kernel_thread: flags & KERNEL_THREAD != 0,
        start_ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_hostile_name() {
        let line =
            "4242 (a) S 1 (x) R 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 123456 999 1 2";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                kernel_thread: false,
                start_ticks: 123_456
            })
        );
        let kthread = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0";
        assert_eq!(
            parse_stat(kthread),
            Some(Stat {
                kernel_thread: true,
                start_ticks: 7
            })
        );
        assert_eq!(parse_stat("1 (cut) S 1 2"), None);
    }
}

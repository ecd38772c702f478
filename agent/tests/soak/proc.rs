//! The kernel's own account of processes and threads.

use std::fs;
use std::path::Path;

/// Numbers of the threads of a process, by name.
pub fn threads(pid: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let thread = |entry: fs::DirEntry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some((
            entry.file_name().to_str()?.parse().ok()?,
            comm.trim().into(),
        ))
    };
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(thread)
        .collect()
}

/// The three fields of a thread's `schedstat`: ns on a CPU, ns waiting for
/// one, times on a CPU. `None` once it is gone.
pub fn schedstat(tid: u32) -> Option<[u64; 3]> {
    let text = fs::read_to_string(format!("/proc/{tid}/task/{tid}/schedstat")).ok()?;
    let mut fields = text.split_ascii_whitespace().map(|f| f.parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

/// Voluntary and other context switches of a thread.
pub fn switches(tid: u32) -> [u64; 2] {
    let status = Status::of(format!("/proc/{tid}/task/{tid}/status").as_ref());
    ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|name| status.number(name))
}

/// Resident memory of a process, KiB.
pub fn rss_kib(pid: u32) -> u64 {
    Status::of(format!("/proc/{pid}/status").as_ref()).number("VmRSS")
}

/// The parts of that: its own pages, files, shared memory.
pub fn resident(pid: u32) -> String {
    let status = Status::of(format!("/proc/{pid}/status").as_ref());
    let parts = ["RssAnon", "RssFile", "RssShmem", "VmHWM"];
    parts
        .map(|part| format!("{part} {} KiB", status.number(part)))
        .join(", ")
}

/// Open files of this process.
pub fn files() -> usize {
    fs::read_dir("/proc/self/fd").expect("files").count()
}

/// A file of lines such as `VmRSS:  1234 kB`.
pub struct Status(String);

impl Status {
    pub fn of(path: &Path) -> Self {
        Self(fs::read_to_string(path).expect("status"))
    }

    /// Number of the line of that name.
    pub fn number(&self, name: &str) -> u64 {
        self.optional(name).expect("a number of that name")
    }

    pub fn optional(&self, name: &str) -> Option<u64> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_ascii_whitespace().next()?.parse().ok()
    }
}

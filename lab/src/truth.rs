//! The independent truth: what the kernel keeps of each thread whether or not
//! anybody measures.

use std::fs;

use anyhow::Context as _;

/// Time of a thread since it began, from `/proc/PID/task/TID/schedstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// On a CPU, ns.
    pub run_ns: u64,
    /// Runnable but not running, ns (`run_delay`): the figure that KVM tells
    /// the guest as steal. A wait still open is not in it.
    pub ready_ns: u64,
    /// Times switched in.
    pub slices: u64,
}

impl Times {
    /// What was added since an earlier reading.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            ready_ns: self.ready_ns.saturating_sub(earlier.ready_ns),
            slices: self.slices.saturating_sub(earlier.slices),
        }
    }
}

/// Ids of a process's threads whose name begins with `prefix`: QEMU calls
/// vCPUs `CPU n/KVM` and iothreads `IO id`.
///
/// # Errors
/// The process is gone.
pub fn threads(pid: u32, prefix: &str) -> anyhow::Result<Vec<u32>> {
    let dir = format!("/proc/{pid}/task");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list threads of process {pid}"))? {
        let path = entry?.path();
        let named = fs::read_to_string(path.join("comm")).is_ok_and(|c| c.starts_with(prefix));
        let tid = path
            .file_name()
            .and_then(|n| n.to_str()?.parse::<u32>().ok());
        found.extend(tid.filter(|_| named));
    }
    found.sort_unstable();
    Ok(found)
}

/// Times of all threads of a process whose name begins with `prefix`, summed.
///
/// # Errors
/// The process is gone.
pub fn times(pid: u32, prefix: &str) -> anyhow::Result<Times> {
    let mut sum = Times::default();
    for tid in threads(pid, prefix)? {
        let of = read(pid, tid)?;
        sum.run_ns += of.run_ns;
        sum.ready_ns += of.ready_ns;
        sum.slices += of.slices;
    }
    Ok(sum)
}

/// Begin of the names of vCPU threads.
pub const VCPUS: &str = "CPU ";
/// Begin of the names of our disks' iothreads. `IO mon_iothread` is QMP's.
pub const IOTHREADS: &str = "IO io";

fn read(pid: u32, tid: u32) -> anyhow::Result<Times> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"))
        .with_context(|| format!("read schedstat of thread {tid}"))?;
    parse(&text).with_context(|| format!("schedstat of thread {tid} says {text:?}"))
}

fn parse(text: &str) -> Option<Times> {
    let mut fields = text.split_whitespace().map(|f| f.parse().ok());
    Some(Times {
        run_ns: fields.next()??,
        ready_ns: fields.next()??,
        slices: fields.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_has_three_fields() {
        let times = parse("8651297 1207 44\n").expect("times");
        assert_eq!(
            (times.run_ns, times.ready_ns, times.slices),
            (8_651_297, 1207, 44)
        );
        assert_eq!(parse("8651297 1207"), None);
        assert_eq!(parse("a b c"), None);
    }

    #[test]
    fn this_thread_has_run() {
        let pid = std::process::id();
        assert!(times(pid, "").expect("own times").run_ns > 0);
    }
}

//! `/proc/<pid>/stat`, for one process or thread.

/// `USER_HZ`: 100 on every architecture that has KVM, whatever the kernel's
/// own tick is.
pub const NS_PER_TICK: u64 = 10_000_000;

/// Fields of a `stat` line (Documentation/filesystems/proc.rst, table 1-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStat {
    /// Name in brackets; a workqueue's worker shows its work after `-` or `+`.
    pub comm: String,
    /// A thread of the kernel's own.
    pub kernel: bool,
    /// User and system time, ns in steps of 10 ms; of a process all threads',
    /// those that ended included.
    pub cpu_ns: u64,
    /// Threads of the process.
    pub threads: u64,
    /// Start, clock ticks since boot.
    pub start_ticks: u64,
    /// CPU it runs on or ran on last.
    pub cpu: Option<u32>,
}

/// Reads a line. Fields are counted from the last `)`: a name may hold spaces
/// and brackets.
pub fn parse(line: &[u8]) -> Option<TaskStat> {
    /// `PF_KTHREAD` of include/linux/sched.h.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let close = line.iter().rposition(|b| *b == b')')?;
    let open = line.iter().position(|b| *b == b'(')?;
    let comm = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
    let rest = str::from_utf8(line.get(close + 1..)?).ok()?;
    // Field 3, the state, is the first here.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(TaskStat {
        comm,
        kernel: field(9)? & KERNEL_THREAD != 0,
        cpu_ns: (field(14)? + field(15)?).saturating_mul(NS_PER_TICK),
        threads: field(20)?,
        start_ticks: field(22)?,
        cpu: field(39).and_then(|cpu| u32::try_from(cpu).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_a_kernel() {
        // Linux 6.18, a process that named itself to confuse readers.
        let line = b"4242 (a) R 1 (b) S 1 4242 4242 0 -1 4194560 1190 0 0 0 37 5 0 0 20 0 3 0 12345 9 1 18446744073709551615 1 1 0 0 0 0 0 4096 16384 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let stat = parse(line).unwrap();
        assert_eq!(stat.comm, "a) R 1 (b");
        assert_eq!((stat.kernel, stat.cpu_ns), (false, 420_000_000));
        assert_eq!((stat.threads, stat.start_ticks), (3, 12345));
        assert_eq!(stat.cpu, Some(1));
        assert_eq!(parse(b"1 (cut) S 1 2"), None);
    }

    #[test]
    fn this_thread() {
        let stat = parse(&std::fs::read("/proc/thread-self/stat").unwrap()).unwrap();
        assert!(!stat.kernel && stat.start_ticks > 0 && stat.cpu.is_some());
        let kthread = std::fs::read("/proc/2/stat").unwrap();
        // In a pid namespace process 2 may be anything.
        let kthread = parse(&kthread).unwrap();
        assert!(kthread.comm != "kthreadd" || kthread.kernel);
    }
}

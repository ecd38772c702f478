//! Which CPUs and NUMA nodes a thread may use, by `/proc/P/task/T/status`
//! (`fs/proc/array.c`; proc_pid_status(5)).

/// `Cpus_allowed_list` and `Mems_allowed_list`; the second is there on kernels
/// with cpusets alone. What a VMM binds by `mbind` does not show.
#[must_use]
pub fn allowed(status: &str) -> (Option<String>, Option<String>) {
    let list = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    };
    (list("Cpus_allowed_list:"), list("Mems_allowed_list:"))
}

/// CPUs of each vCPU in order of their numbers, runs of vCPUs with the same
/// ones in one: `0-3: 0-15; 4: 17`. `None` without any.
#[must_use]
pub fn pinning(vcpus: &[(u32, String)]) -> Option<String> {
    let joined =
        |a: &(u32, String), b: &(u32, String)| a.0.checked_add(1) == Some(b.0) && a.1 == b.1;
    let run = |run: &[(u32, String)]| match run {
        [(one, cpus)] => format!("{one}: {cpus}"),
        [(first, cpus), .., (last, _)] => format!("{first}-{last}: {cpus}"),
        [] => String::new(),
    };
    let runs: Vec<String> = vcpus.chunk_by(joined).map(run).collect();
    (!runs.is_empty()).then(|| runs.join("; "))
}

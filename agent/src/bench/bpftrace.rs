//! The peer's peer: what `runqlat.bt` and `biolatency.bt` of bpftrace count,
//! in one script.
//!
//! Those of Debian need kprobes or tracefs. Raw tracepoints need neither, are
//! cheaper, and came with bpftrace 0.18; older ones get the same over tracefs.

use std::ffi::OsString;
use std::path::Path;

use crate::bench::peer::{Ready, Spec};

/// Printed once, 0.2 s after the last probe was attached: bpftrace says nothing
/// of its own that comes after.
const SIGN: &str = "attached";

/// Over raw tracepoints, fields by the kernel's BTF.
const RAW: &str = r#"
rawtracepoint:sched_wakeup, rawtracepoint:sched_wakeup_new {
    @queued[((struct task_struct *)arg0)->pid] = nsecs;
}
rawtracepoint:sched_switch {
    $prev = (struct task_struct *)arg1;
    $next = (struct task_struct *)arg2;
    if (arg3 == 0) { @queued[$prev->pid] = nsecs; }
    $since = @queued[$next->pid];
    if ($since) { @runq_us = hist((nsecs - $since) / 1000); }
    delete(@queued[$next->pid]);
}
rawtracepoint:block_rq_issue { @issued[arg0] = nsecs; }
rawtracepoint:block_rq_complete /@issued[arg0]/ {
    @block_us = hist((nsecs - @issued[arg0]) / 1000);
    delete(@issued[arg0]);
}
interval:ms:200 /!@told/ { @told = 1; printf("attached\n"); }
"#;

/// Over tracefs.
const TRACEFS: &str = r#"
tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new {
    @queued[args->pid] = nsecs;
}
tracepoint:sched:sched_switch {
    if (args->prev_state == 0) { @queued[args->prev_pid] = nsecs; }
    $since = @queued[args->next_pid];
    if ($since) { @runq_us = hist((nsecs - $since) / 1000); }
    delete(@queued[args->next_pid]);
}
tracepoint:block:block_rq_issue { @issued[args->dev, args->sector] = nsecs; }
tracepoint:block:block_rq_complete /@issued[args->dev, args->sector]/ {
    @block_us = hist((nsecs - @issued[args->dev, args->sector]) / 1000);
    delete(@issued[args->dev, args->sector]);
}
interval:ms:200 /!@told/ { @told = 1; printf("attached\n"); }
"#;

/// Both ways, the cheaper first.
pub fn specs(program: &Path) -> [Spec; 2] {
    [RAW, TRACEFS].map(|script| Spec {
        program: program.to_owned(),
        args: ["-B", "line", "-e", script].map(OsString::from).to_vec(),
        ready: Ready::Line(SIGN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_scripts_give_the_sign() {
        let sign = format!("printf(\"{SIGN}\\n\")");
        assert!(RAW.contains(&sign) && TRACEFS.contains(&sign));
    }
}

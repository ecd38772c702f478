//! `/proc/P/task/T/schedstat`: works on every kernel, without privileges, and
//! knows time on CPU and run-queue latency, but no histogram, and a wait only
//! once it has ended.

use crate::clock::monotonic_ns;
use crate::files;

use super::{Reading, RegisterError, ThreadSource};

/// Value of the rows' `source` column.
pub const SCHEDSTAT: &str = "schedstat";

/// The fallback source.
#[derive(Debug, Default)]
pub struct Schedstat;

/// A thread measured by it.
#[derive(Debug)]
pub struct SchedstatThread {
    path: String,
}

impl ThreadSource for Schedstat {
    type Handle = SchedstatThread;

    fn name(&self) -> &'static str {
        SCHEDSTAT
    }

    fn register(&mut self, pid: u32, tid: u32, _: u32) -> Result<SchedstatThread, RegisterError> {
        let thread = SchedstatThread {
            path: format!("/proc/{pid}/task/{tid}/schedstat"),
        };
        self.read(&thread)
            .map(|_| thread)
            .ok_or(RegisterError::Gone)
    }

    fn release(&mut self, _: SchedstatThread) {}

    fn read(&self, thread: &SchedstatThread) -> Option<Reading> {
        let text = files::text(&thread.path)?;
        let (run_ns, ready_ns) = parse(&text)?;
        Some(Reading {
            at_ns: monotonic_ns(),
            run_ns,
            ready_ns,
            clock_skews: None,
            detail: None,
        })
    }
}

/// Time on CPU and run-queue latency, ns.
fn parse(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_itself() {
        let mut source = Schedstat;
        let me = std::process::id();
        let thread = source.register(me, me, 0).unwrap();
        let (a, b) = (source.read(&thread).unwrap(), source.read(&thread).unwrap());
        assert!(
            a.run_ns > 0 && b.run_ns >= a.run_ns && b.ready_ns >= a.ready_ns && b.at_ns >= a.at_ns
        );
    }

    #[test]
    fn odd_files() {
        assert_eq!(parse("12 34 5\n"), Some((12, 34)));
        for text in ["", "12", "a b c", "-1 2 3"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}

//! CPU time of the host's own tasks, by owner.
//!
//! One scan of `/proc` a window: `stat` of each process, in which the kernel
//! adds up its threads, and `schedstat` of each kernel thread, exact to the
//! ns. What a scan costs is in [`FamilyStatus::source`], measured.

mod owner;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use headroom_core::batch::Chunk;
use headroom_core::rows::HostTaskRow;
use rustix::time::{ClockId, clock_gettime};

use super::observe::{FamilyStatus, Observer, Scene};
use super::rows::{Frame, int};
use super::stat::{self, TaskStat};
use crate::clock::monotonic_ns;
use crate::files;

/// Owners with a row of their own.
const TOP: usize = 20;

/// Scans `/proc` once a window.
pub struct Tasks {
    proc: PathBuf,
    tasks: HashMap<u32, Task>,
    at_ns: u64,
    at_ticks: u64,
    scanned: usize,
}

struct Task {
    start_ticks: u64,
    run_ns: u64,
    /// In the last scan.
    seen: bool,
}

/// One owner's sums in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    run_ns: u64,
    processes: u64,
    threads: u64,
}

/// Kind and name.
type Owner = (&'static str, String);

impl Tasks {
    /// Reads all tasks for the first time.
    pub fn new(proc: PathBuf) -> Self {
        let mut tasks = Self {
            proc,
            tasks: HashMap::new(),
            at_ns: 0,
            at_ticks: 0,
            scanned: 0,
        };
        tasks.scan(&HashSet::new(), None);
        tasks
    }

    /// Time of each owner since the last scan; the first one gives nothing.
    /// `since_ticks` is when that was: a task that began later is new, one
    /// that began before and was not seen was a VM's thread, and counts from
    /// now on.
    fn scan(&mut self, skip: &HashSet<u32>, since_ticks: Option<u64>) -> BTreeMap<Owner, Sum> {
        let (began, ticks) = (monotonic_ns(), boot_ticks());
        self.tasks.values_mut().for_each(|t| t.seen = false);
        let mut sums: BTreeMap<Owner, Sum> = BTreeMap::new();
        let mut scanned = 0;
        for pid in self.processes() {
            if skip.contains(&pid) {
                continue;
            }
            let Some((stat, run_ns)) = self.read(pid) else {
                continue;
            };
            scanned += 1;
            let ran = self.advance(pid, &stat, run_ns, since_ticks);
            let sum = sums
                .entry(owner::owner(&stat.comm, stat.kernel))
                .or_default();
            sum.run_ns += ran;
            sum.processes += 1;
            sum.threads += stat.threads;
        }
        self.tasks.retain(|_, t| t.seen);
        (self.at_ns, self.at_ticks) = (began, ticks);
        let scan_ns = monotonic_ns().saturating_sub(began);
        tracing::debug!(tasks = scanned, scan_ns, "host tasks read");
        self.scanned = scanned;
        sums
    }

    fn processes(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(&self.proc)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn read(&self, pid: u32) -> Option<(TaskStat, u64)> {
        let dir = self.proc.join(pid.to_string());
        let stat = stat::parse(&std::fs::read(dir.join("stat")).ok()?)?;
        let exact = stat.kernel.then(|| {
            let text = files::text(dir.join("schedstat"))?;
            text.split(' ').next()?.parse().ok()
        });
        let run_ns = exact.flatten().unwrap_or(stat.cpu_ns);
        Some((stat, run_ns))
    }

    fn advance(&mut self, pid: u32, stat: &TaskStat, now_ns: u64, since: Option<u64>) -> u64 {
        let new = Task {
            start_ticks: stat.start_ticks,
            run_ns: now_ns,
            seen: true,
        };
        match self.tasks.insert(pid, new) {
            Some(old) if old.start_ticks == stat.start_ticks => now_ns.saturating_sub(old.run_ns),
            _ if since.is_some_and(|since| stat.start_ticks >= since) => now_ns,
            _ => 0,
        }
    }
}

impl Observer for Tasks {
    fn status(&self) -> Vec<FamilyStatus> {
        vec![FamilyStatus {
            family: "host_tasks",
            source: (self.scanned > 0).then(|| "/proc".to_owned()),
            reason: (self.scanned == 0).then(|| "/proc shows no process".to_owned()),
        }]
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let of_vms = scene.vms.iter().flat_map(|vm| {
            let threads = vm.vm.threads.iter().map(|thread| thread.pid);
            threads.chain([vm.vm.key.pid])
        });
        let skip: HashSet<u32> = of_vms.collect();
        let base_ns = self.at_ns;
        let sums = self.scan(&skip, Some(self.at_ticks));
        let window_ns = self.at_ns.saturating_sub(base_ns);
        vec![Chunk::of(&rows(frame, window_ns, sums))]
    }
}

/// Clock ticks since boot, time asleep included, as start times count.
fn boot_ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(ns).unwrap_or(u64::MAX) / stat::NS_PER_TICK
}

/// The owners with most time, and the rest of each kind.
fn rows(frame: &Frame<'_>, window_ns: u64, sums: BTreeMap<Owner, Sum>) -> Vec<HostTaskRow> {
    let mut sums: Vec<(Owner, Sum)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.run_ns));
    let mut rest: BTreeMap<Owner, Sum> = BTreeMap::new();
    for ((kind, _), sum) in sums.split_off(TOP.min(sums.len())) {
        let all = rest.entry((kind, "(rest)".to_owned())).or_default();
        all.run_ns += sum.run_ns;
        all.processes += sum.processes;
        all.threads += sum.threads;
    }
    let row = |((kind, owner), sum): (Owner, Sum)| HostTaskRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        owner_kind: kind.to_owned(),
        owner,
        window_ns: int(window_ns),
        run_ns: int(sum.run_ns),
        processes: int(sum.processes),
        threads: int(sum.threads),
    };
    sums.into_iter().chain(rest).map(row).collect()
}

#[cfg(test)]
mod tests;

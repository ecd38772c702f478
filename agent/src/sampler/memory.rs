//! Memory: how much hosts and VMs have and use, and the ladder that a shortage
//! climbs, from reclaim over swap to the OOM kill.

mod cgroup;
mod counters;
mod follow;
mod host;
mod ladder;
mod vm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use headroom_core::batch::Chunk;
use headroom_core::rows::HostMemoryRow;

use super::observe::{FamilyStatus, Observer, ObserverEvent, Scene};
use super::rows::Frame;
use crate::clock;
use crate::discover::VmKey;
use cgroup::Mounts;
use follow::Followed;
use host::{HostFiles, HostReading, VmStat};
use ladder::Rung;

/// What measured the stalls where no probe did.
const PROC: &str = "proc";

/// Why no row has a balloon's size.
const NO_BALLOON: &str = "the balloon's size is unavailable: the host's kernel does not know it, and the VMM's own socket (QMP) serves one client, the platform";

/// Measures memory by files of the kernel that uid 0 reads without any
/// capability.
pub struct MemoryObserver {
    host: String,
    proc: PathBuf,
    files: HostFiles,
    mounts: Mounts,
    base: HostReading,
    ladder: HostLadder,
    vms: BTreeMap<VmKey, Followed>,
    events: Vec<ObserverEvent>,
    ticks: u32,
}

/// The host's steps.
#[derive(Default)]
struct HostLadder {
    reclaim: Rung,
    compaction: Rung,
    swap: Rung,
    kills: Rung,
    /// Whether anything was swapped out since the last tick.
    swapping: Rung,
}

impl MemoryObserver {
    /// For a host of that name, by files below its `/proc` and `/sys`.
    #[must_use]
    pub fn new(host: String, proc: &Path, sys: &Path) -> Self {
        let files = HostFiles::new(proc, sys);
        let mountinfo = std::fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default();
        Self {
            base: files.read(),
            host,
            proc: proc.into(),
            mounts: Mounts::parse(&mountinfo),
            files,
            ladder: HostLadder::default(),
            vms: BTreeMap::new(),
            events: Vec::new(),
            ticks: 0,
        }
    }

    /// Takes the host's readings after the VMs', of which `kills` are events
    /// already.
    fn climb(&mut self, stat: &VmStat, kills: u64) {
        let host = format!("host/{}", self.host);
        let mut steps = Steps::new(&host, &mut self.events);
        if let Some(n) = self.ladder.reclaim.step(stat.direct_reclaims()) {
            let detail = format!("tasks began to reclaim memory themselves, {n} times so far");
            steps.push(Step::Reclaim, detail);
        }
        if let Some(n) = self.ladder.compaction.step(stat.get("compact_stall")) {
            let detail = format!("tasks began to stall for large pages, {n} times so far");
            steps.push(Step::CompactionStall, detail);
        }
        if let Some(n) = self.ladder.swap.step(swapped_out(stat)) {
            steps.push(Step::Swap, format!("swapping out began, {n} pages so far"));
        }
        let killed = self.ladder.kills.growth(stat.get("oom_kill")).unwrap_or(0);
        if let Some(n @ 1..) = killed.checked_sub(kills) {
            let detail = format!("{n} processes that are no VM's were killed for want of memory");
            steps.push(Step::OomKill, detail);
        }
    }

    fn host_row(&mut self, frame: &Frame<'_>) -> HostMemoryRow {
        let now = self.files.read();
        let row = self.files.row(&self.base, &now);
        self.base = now;
        HostMemoryRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            source: PROC.to_owned(),
            ..row
        }
    }
}

impl Observer for MemoryObserver {
    fn status(&self) -> Vec<FamilyStatus> {
        vec![FamilyStatus {
            family: "memory",
            source: Some(PROC.to_owned()),
            reason: Some(NO_BALLOON.to_owned()),
        }]
    }

    fn tick(&mut self, scene: &Scene<'_>) {
        self.ticks = self.ticks.wrapping_add(1);
        let before = self.files.vmstat();
        // Where the host swaps nothing no VM's swap grows: their status files
        // need not be read.
        let swapping = self.ladder.swapping.growth(swapped_out(&before)) != Some(0);
        let mut kills = 0;
        for seen in &scene.vms {
            let followed = self
                .vms
                .entry(seen.vm.key.clone())
                .or_insert_with(|| Followed::new(&self.proc, &self.mounts, seen.vm));
            if seen.live {
                followed.refresh(&self.proc, &self.mounts, seen.vm, self.ticks);
            }
            let process = swapping.then_some(self.proc.as_path());
            kills += followed.climb(seen.vm, process, &mut self.events);
        }
        // After the VMs': a kill that is in theirs is in this one too.
        let stat = self.files.vmstat();
        self.climb(&stat, kills);
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let host = self.host_row(frame);
        let mut rows = Vec::new();
        for seen in &scene.vms {
            let followed = self.vms.get_mut(&seen.vm.key);
            rows.extend(followed.and_then(|f| f.row(frame, seen, &self.proc)));
        }
        self.vms
            .retain(|key, _| scene.vms.iter().any(|s| s.live && s.vm.key == *key));
        vec![Chunk::of(&[host]), Chunk::of(&rows)]
    }

    fn take_events(&mut self) -> Vec<ObserverEvent> {
        std::mem::take(&mut self.events)
    }
}

/// Pages that went to swap devices, to zswap, which stands before them, or
/// were zero and went nowhere (kernel 6.12 and later).
fn swapped_out(stat: &VmStat) -> Option<u64> {
    let besides = ["zswpout", "swpout_zero"].map(|name| stat.get(name).unwrap_or(0));
    Some(stat.get("pswpout")? + besides.iter().sum::<u64>())
}

/// The steps of the ladder, in the order in which a shortage takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reclaim,
    CompactionStall,
    Swap,
    OomKill,
}

impl Step {
    const fn kind(self) -> &'static str {
        match self {
            Self::Reclaim => "memory_reclaim",
            Self::CompactionStall => "memory_compaction_stall",
            Self::Swap => "memory_swap",
            Self::OomKill => "memory_oom_kill",
        }
    }
}

/// Makes the events of one tick and subject.
struct Steps<'a> {
    subject: &'a str,
    now_us: i64,
    events: &'a mut Vec<ObserverEvent>,
}

impl<'a> Steps<'a> {
    fn new(subject: &'a str, events: &'a mut Vec<ObserverEvent>) -> Self {
        Self {
            subject,
            now_us: clock::micros(clock::wall()),
            events,
        }
    }

    /// Files tell that a step was taken since the last tick, not when: it gets
    /// this tick's time. Steps of one tick stand 1 µs apart, in the order in
    /// which the kernel takes them: it swaps while it reclaims, and kills when
    /// that did not help.
    fn push(&mut self, step: Step, detail: String) {
        self.events.push(ObserverEvent {
            ts_us: self.now_us + step as i64,
            kind: step.kind(),
            subject: self.subject.to_owned(),
            detail,
        });
    }
}

#[cfg(test)]
mod tests;

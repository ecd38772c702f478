//! Memory: how much hosts and VMs have and use, and the ladder that a shortage
//! climbs, from reclaim over swap to the OOM kill.

mod cgroup;
mod follow;
mod host;
mod ladder;
mod stalls;
mod steps;
mod vm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use headroom_abi::memory::MemoryStats;
use headroom_abi::tag;
use headroom_core::batch::Chunk;
use headroom_core::rows::HostMemoryRow;

use super::observe::{FamilyStatus, Observer, ObserverEvent, Scene};
use super::rows::{Frame, int};
use crate::cgroup::Cgroups;
use crate::clock::monotonic_ns;
use crate::discover::VmKey;
use crate::probe::MemoryReader;
use follow::Followed;
use host::{HostFiles, HostReading, VmStat};
use ladder::{Rung, Sign};
use stalls::{Moment, StallProbe};
use steps::{Step, Steps};

/// What measured the stalls where no probe did.
const PROC: &str = "proc";

/// Why no row has a balloon's size.
const NO_BALLOON: &str = "the balloon's size is unavailable: the host's kernel does not know it, and the VMM's own socket (QMP) serves one client, the platform";

/// Measures memory by files of the kernel that uid 0 reads without any
/// capability, and stalls by probes where they are attached.
pub struct MemoryObserver {
    host: String,
    proc: PathBuf,
    files: HostFiles,
    cgroups: Cgroups,
    probe: StallProbe,
    base: HostReading,
    base_stalls: Option<MemoryStats>,
    ladder: HostLadder,
    vms: BTreeMap<VmKey, Followed>,
    events: Vec<ObserverEvent>,
    ticks: u32,
    /// The last two ticks, `CLOCK_MONOTONIC` ns.
    ticked_ns: [u64; 2],
}

/// The host's steps.
#[derive(Default)]
struct HostLadder {
    reclaim: Rung,
    compaction: Rung,
    swap: Rung,
    kills: Sign,
    /// Whether anything was swapped out since the last tick.
    swapping: Sign,
}

impl MemoryObserver {
    /// For a host of that name, by files below its `/proc` and `/sys`.
    #[must_use]
    pub fn new(host: String, proc: &Path, sys: &Path, reader: Option<MemoryReader>) -> Self {
        let files = HostFiles::new(proc, sys);
        let probe = StallProbe::new(reader);
        Self {
            base: files.read(),
            base_stalls: probe.stats(Some(0)),
            probe,
            host,
            proc: proc.into(),
            cgroups: Cgroups::new(proc.into()),
            files,
            ladder: HostLadder::default(),
            vms: BTreeMap::new(),
            events: Vec::new(),
            ticks: 0,
            ticked_ns: [monotonic_ns(); 2],
        }
    }

    /// Takes the host's readings after the VMs', of which `kills` are events
    /// already.
    fn climb(&mut self, moment: Moment, stat: &VmStat, kills: u64) {
        let mut steps = Steps::new(moment);
        let stalls = self.probe.stats(Some(0));
        let began = |of: fn(&MemoryStats) -> &_| moment.beginning(stalls.as_ref().map(of));
        if let Some(n) = self.ladder.reclaim.step(stat.direct_reclaims()) {
            let detail = format!("tasks began to reclaim memory themselves, {n} times so far");
            steps.push(Step::Reclaim, began(|s| &s.reclaim.began), detail);
        }
        if let Some(n) = self.ladder.compaction.step(stat.get("compact_stall")) {
            let detail = format!("tasks began to stall for large pages, {n} times so far");
            steps.push(
                Step::CompactionStall,
                began(|s| &s.compaction.began),
                detail,
            );
        }
        if let Some(n) = self.ladder.swap.step(swapped_out(stat)) {
            let detail = format!("swapping out began, {n} pages so far");
            steps.push(Step::Swap, began(|s| &s.written), detail);
        }
        let killed = self.ladder.kills.growth(stat.get("oom_kill")).unwrap_or(0);
        if !self.probe.tells_kills()
            && let Some(n @ 1..) = killed.checked_sub(kills)
        {
            let detail = format!("{n} processes that are no VM's were killed for want of memory");
            steps.push(Step::OomKill, None, detail);
        }
        let subject = format!("host/{}", self.host);
        self.events.extend(steps.events(&subject));
    }

    /// OOM kills that the probes saw; each has the VM's steps of this tick
    /// before it.
    fn kills(&mut self, moment: Moment, scene: &Scene<'_>) {
        let (kills, missed) = self.probe.kills();
        let host = format!("host/{}", self.host);
        for kill in kills {
            let index = u16::try_from(tag::vm(kill.tag)).unwrap_or(0);
            let by_pid = scene.vms.iter().find(|seen| seen.vm.key.pid == kill.pid);
            let vm = by_pid.or_else(|| scene.by_index(index));
            let subject = vm.map_or_else(|| host.clone(), |seen| format!("vm/{}", seen.vm.id));
            let detail = format!("process {} was killed for want of memory", kill.pid);
            let mut steps = Steps::new(moment);
            steps.push(Step::OomKill, Some(moment.wall_of(kill.at_ns)), detail);
            self.events.extend(steps.events(&subject));
        }
        if missed > 0 {
            tracing::warn!(missed, "more oom kills in a second than the probe keeps");
            let mut steps = Steps::new(moment);
            let detail = format!("{missed} more processes were killed for want of memory");
            steps.push(Step::OomKill, None, detail);
            self.events.extend(steps.events(&host));
        }
    }

    fn host_row(&mut self, frame: &Frame<'_>) -> HostMemoryRow {
        let now = self.files.read();
        let row = self.files.row(&self.base, &now);
        self.base = now;
        let stalls = self.probe.stats(Some(0));
        let base = std::mem::replace(&mut self.base_stalls, stalls);
        let reclaim = self.probe.reclaim(base.as_ref(), stalls.as_ref());
        let compaction = self.probe.compaction(base.as_ref(), stalls.as_ref());
        let background = stalls
            .zip(base)
            .map(|(now, then)| int(now.background_ns.saturating_sub(then.background_ns)));
        HostMemoryRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            source: self.probe.source().unwrap_or(PROC).to_owned(),
            reclaim_ns: reclaim.ns,
            reclaim_hist: reclaim.hist,
            compaction_ns: compaction.ns,
            compaction_hist: compaction.hist,
            background_ns: background,
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
        let moment = Moment::now(self.ticked_ns[0]);
        self.ticked_ns = [self.ticked_ns[1], moment.mono_ns];
        let before = self.files.vmstat();
        // Where the host swaps nothing no VM's swap grows: their status files
        // need not be read.
        let swapping = self.ladder.swapping.growth(swapped_out(&before)) != Some(0);
        let mut kills = 0;
        for seen in &scene.vms {
            let followed = self
                .vms
                .entry(seen.vm.key.clone())
                .or_insert_with(|| Followed::new(&self.cgroups, &self.probe, seen));
            if seen.live {
                followed.refresh(&self.cgroups, seen.vm, self.ticks);
            }
            let process = swapping.then_some(self.proc.as_path());
            let (steps, killed) = followed.climb(seen, &self.probe, process, moment);
            self.events.extend(steps);
            kills += killed;
        }
        self.kills(moment, scene);
        // After the VMs': a kill that is in theirs is in this one too.
        let stat = self.files.vmstat();
        self.climb(moment, &stat, kills);
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let mut rows = Vec::new();
        for seen in &scene.vms {
            let followed = self.vms.get_mut(&seen.vm.key);
            rows.extend(followed.and_then(|f| f.row(frame, seen, &self.probe, &self.proc)));
        }
        self.vms
            .retain(|key, _| scene.vms.iter().any(|s| s.live && s.vm.key == *key));
        // After the VMs: a stall that is in theirs is in the host's, too.
        let host = self.host_row(frame);
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

#[cfg(test)]
mod tests;

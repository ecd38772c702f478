//! One VM from window to window.

use std::path::Path;

use headroom_abi::memory::MemoryStats;
use headroom_core::rows::VmMemoryRow;

use super::PROC;
use super::cgroup::Own;
use super::ladder::{Rung, Sign};
use super::stalls::{Moment, StallProbe};
use super::steps::{Step, Steps};
use super::vm::{CgroupReading, Process, Signs};
use crate::cgroup::Cgroups;
use crate::clock::monotonic_ns;
use crate::discover::Vm;
use crate::sampler::observe::{ObserverEvent, SceneVm};
use crate::sampler::rows::{Frame, int};

/// Ticks between two looks at who is in a VM's cgroup. Every time would be a
/// walk over its groups a second; a process joins it at a start or by hand.
const LOOK_EVERY: u32 = 10;

/// A VM, its cgroup and where the present window began.
pub struct Followed {
    own: Own,
    base: CgroupReading,
    base_stalls: Option<MemoryStats>,
    ticks: u32,
    reclaim: Rung,
    compaction: Rung,
    swap: Rung,
    swapped: Sign,
    written: Sign,
    kills: Sign,
}

impl Followed {
    pub fn new(cgroups: &Cgroups, probe: &StallProbe, seen: &SceneVm<'_>) -> Self {
        let own = Own::find(cgroups, seen.vm);
        Self {
            base_stalls: probe.stats(seen.index),
            base: CgroupReading::read(&own),
            own,
            ticks: 0,
            reclaim: Rung::default(),
            compaction: Rung::default(),
            swap: Rung::default(),
            swapped: Sign::default(),
            written: Sign::default(),
            kills: Sign::default(),
        }
    }

    /// Looks again for its cgroup: each second while it starts, for a platform
    /// moves it then, later now and then, not all VMs in the same second.
    pub fn refresh(&mut self, cgroups: &Cgroups, vm: &Vm, tick: u32) {
        self.ticks = self.ticks.saturating_add(1);
        let turn = (tick.wrapping_add(vm.key.pid)).is_multiple_of(LOOK_EVERY);
        if self.ticks > LOOK_EVERY && !turn {
            return;
        }
        let own = Own::find(cgroups, vm);
        // A process that dies leaves its cgroup before it leaves /proc: what
        // the group counted last, such as its kill, is the VM's all the same.
        if own != self.own && !cgroups.dying(vm) {
            // Another group counts from another start.
            let begun = self.base.at_ns;
            self.base = CgroupReading::read(&own);
            self.base.at_ns = begun;
            (self.reclaim, self.kills) = (Rung::default(), Sign::default());
            self.own = own;
        }
    }

    /// Takes a tick's readings: the steps taken, and the number of kills that
    /// its cgroup counted. The process is looked at only with a `/proc` given.
    pub fn climb(
        &mut self,
        seen: &SceneVm<'_>,
        probe: &StallProbe,
        proc: Option<&Path>,
        moment: Moment,
    ) -> (Vec<ObserverEvent>, u64) {
        let (vm, signs) = (seen.vm, Signs::read(&self.own));
        let stalls = probe.stats(seen.index);
        let began = |of: fn(&MemoryStats) -> &_| moment.beginning(stalls.as_ref().map(of));
        let mut steps = Steps::new(moment);
        let parts = [
            signs.limit_hits,
            signs.high_hits,
            stalls.map(|s| s.reclaim.began.signs),
        ];
        if let Some(n) = self.reclaim.step(sum(&parts)) {
            let detail = format!("it reached a memory limit or had to reclaim, {n} times so far");
            steps.push(Step::Reclaim, began(|s| &s.reclaim.began), detail);
        }
        let compactions = stalls.map(|s| s.compaction.began.signs);
        if let Some(n) = self.compaction.step(compactions) {
            let detail = format!("it began to stall for large pages, {n} times so far");
            steps.push(
                Step::CompactionStall,
                began(|s| &s.compaction.began),
                detail,
            );
        }
        // Its own threads' writes tell of a VM that dies before the next look;
        // its size in swap, of what kswapd writes.
        let swapped = proc.and_then(|proc| Process::read(proc, vm.key.pid).swapped());
        let swapped = self.swapped.growth(swapped).map(|bytes| bytes / 4096);
        let written = self.written.growth(stalls.map(|s| s.written.signs));
        if let Some(n) = self.swap.grew(swapped.max(written)) {
            let detail = format!("its memory began to go to swap, {n} pages so far");
            steps.push(Step::Swap, began(|s| &s.written), detail);
        }
        let kills = self.kills.growth(signs.oom_kills).unwrap_or(0);
        if kills > 0 && !probe.tells_kills() {
            let detail = format!("{kills} of its processes were killed for want of memory");
            steps.push(Step::OomKill, None, detail);
        }
        (steps.events(&format!("vm/{}", vm.id)), kills)
    }

    /// The window's row. `None` for a VM that is gone with its cgroup and has
    /// no probes: nothing is known of its last part of a window.
    pub fn row(
        &mut self,
        frame: &Frame<'_>,
        seen: &SceneVm<'_>,
        probe: &StallProbe,
        proc: &Path,
    ) -> Option<VmMemoryRow> {
        let now = CgroupReading::read(&self.own);
        let stalls = probe.stats(seen.index);
        if !seen.live && now.signs == Signs::default() && stalls.is_none() {
            return None;
        }
        let vm = seen.vm;
        let base = std::mem::replace(&mut self.base_stalls, stalls);
        let reclaim = probe.reclaim(base.as_ref(), stalls.as_ref());
        let compaction = probe.compaction(base.as_ref(), stalls.as_ref());
        let mut row = VmMemoryRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            vm_id: vm.id.clone(),
            vm_name: vm.info.name.clone(),
            window_ns: int(monotonic_ns().saturating_sub(self.base.at_ns)),
            given_bytes: vm.info.memory_bytes.map(int),
            reclaim_ns: reclaim.ns,
            reclaim_hist: reclaim.hist,
            compaction_ns: compaction.ns,
            compaction_hist: compaction.hist,
            source: probe
                .source()
                .filter(|_| stalls.is_some())
                .unwrap_or(PROC)
                .to_owned(),
            ..VmMemoryRow::default()
        };
        if seen.live {
            Process::read(proc, vm.key.pid).fill(&mut row);
        }
        now.fill(&self.base, &self.own, &mut row);
        self.base = now;
        Some(row)
    }
}

/// The sum of those that there are; `None` without any.
fn sum(parts: &[Option<u64>]) -> Option<u64> {
    parts.iter().flatten().copied().reduce(|a, b| a + b)
}

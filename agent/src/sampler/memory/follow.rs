//! One VM from window to window.

use std::collections::HashSet;
use std::path::Path;

use headroom_core::rows::VmMemoryRow;

use super::cgroup::{Mounts, Own};
use super::ladder::Rung;
use super::vm::{CgroupReading, Process, Signs};
use super::{PROC, Step, Steps};
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
    ticks: u32,
    reclaim: Rung,
    swap: Rung,
    kills: Rung,
}

impl Followed {
    pub fn new(proc: &Path, mounts: &Mounts, vm: &Vm) -> Self {
        let own = own(proc, mounts, vm);
        Self {
            base: CgroupReading::read(&own),
            own,
            ticks: 0,
            reclaim: Rung::default(),
            swap: Rung::default(),
            kills: Rung::default(),
        }
    }

    /// Looks again for its cgroup: each second while it starts, for a platform
    /// moves it then, later now and then, not all VMs in the same second.
    pub fn refresh(&mut self, proc: &Path, mounts: &Mounts, vm: &Vm, tick: u32) {
        self.ticks = self.ticks.saturating_add(1);
        let turn = (tick.wrapping_add(vm.key.pid)).is_multiple_of(LOOK_EVERY);
        if self.ticks > LOOK_EVERY && !turn {
            return;
        }
        let own = own(proc, mounts, vm);
        if own != self.own {
            // Another group counts from another start.
            let begun = self.base.at_ns;
            self.base = CgroupReading::read(&own);
            self.base.at_ns = begun;
            (self.reclaim, self.kills) = (Rung::default(), Rung::default());
            self.own = own;
        }
    }

    /// Takes a tick's readings; the number of kills found. The process is
    /// looked at only with a `/proc` given.
    pub fn climb(&mut self, vm: &Vm, proc: Option<&Path>, events: &mut Vec<ObserverEvent>) -> u64 {
        let signs = Signs::read(&self.own);
        let subject = format!("vm/{}", vm.id);
        let mut steps = Steps::new(&subject, events);
        let hits = signs.limit_hits.map(|n| n + signs.high_hits.unwrap_or(0));
        if let Some(n) = self.reclaim.step(hits) {
            let detail = format!("it reached its memory limit, {n} times so far");
            steps.push(Step::Reclaim, detail);
        }
        let swapped = proc.and_then(|proc| Process::read(proc, vm.key.pid).swapped());
        if let Some(n) = self.swap.step(swapped) {
            steps.push(
                Step::Swap,
                format!("its memory began to go to swap, {n} bytes so far"),
            );
        }
        let kills = self.kills.growth(signs.oom_kills).unwrap_or(0);
        if kills > 0 {
            let detail = format!("{kills} of its processes were killed for want of memory");
            steps.push(Step::OomKill, detail);
        }
        kills
    }

    /// The window's row. `None` for a VM that is gone with its cgroup: nothing
    /// is known of its last part of a window.
    pub fn row(
        &mut self,
        frame: &Frame<'_>,
        seen: &SceneVm<'_>,
        proc: &Path,
    ) -> Option<VmMemoryRow> {
        let now = CgroupReading::read(&self.own);
        if !seen.live && now.signs == Signs::default() {
            return None;
        }
        let vm = seen.vm;
        let mut row = VmMemoryRow {
            ts: frame.ts,
            host: frame.host.to_owned(),
            vm_id: vm.id.clone(),
            vm_name: vm.info.name.clone(),
            window_ns: int(monotonic_ns().saturating_sub(self.base.at_ns)),
            given_bytes: vm.info.memory_bytes.map(int),
            source: PROC.to_owned(),
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

fn own(proc: &Path, mounts: &Mounts, vm: &Vm) -> Own {
    let of_vm: HashSet<u32> = vm.threads.iter().map(|t| t.pid).collect();
    mounts.own(proc, vm.key.pid, &of_vm)
}

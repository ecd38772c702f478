//! Which cgroups' requests are a VM's.
//!
//! Pages that a VM dirtied are written back by kernel threads; the kernel
//! accounts such requests to the cgroup that dirtied them. That names the VM
//! where its process has a cgroup to itself, as every platform gives it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::observe::Scene;
use crate::cgroup::{Cgroups, Controller, Group};
use crate::discover::VmKey;

/// Ticks in which a new VM is looked at again: launchers move it after start.
const SETTLING: u8 = 5;

/// The cgroups that the kernel accounts block I/O to.
pub struct Named {
    cgroups: Cgroups,
    seen: BTreeMap<VmKey, Seen>,
    named: BTreeMap<u64, u16>,
}

#[derive(Default)]
struct Seen {
    ticks: u8,
    own: BTreeSet<u64>,
}

impl Named {
    pub const fn new(cgroups: Cgroups) -> Self {
        Self {
            cgroups,
            seen: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    /// What must be named anew: cgroup ids and their VM, `None` for no VM any
    /// more. Looks at new VMs, and at all others on demand.
    pub fn changes(&mut self, scene: &Scene<'_>, all: bool) -> Vec<(u64, Option<u16>)> {
        let mut before = std::mem::take(&mut self.seen);
        let mut wanted = BTreeMap::new();
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let Some(number) = vm.index else {
                continue;
            };
            let mut seen = before.remove(&vm.vm.key).unwrap_or_default();
            if all || seen.ticks < SETTLING {
                seen.ticks = seen.ticks.saturating_add(1);
                let own = self.cgroups.own(vm.vm, Controller::Block);
                seen.own = own.iter().filter_map(Group::id).collect();
            }
            wanted.extend(seen.own.iter().map(|id| (*id, number)));
            self.seen.insert(vm.vm.key.clone(), seen);
        }
        let gone = self.named.keys().filter(|id| !wanted.contains_key(id));
        let mut changes: Vec<_> = gone.map(|id| (*id, None)).collect();
        let new = wanted
            .iter()
            .filter(|(id, vm)| self.named.get(id) != Some(vm));
        changes.extend(new.map(|(id, vm)| (*id, Some(*vm))));
        self.named = wanted;
        changes
    }
}

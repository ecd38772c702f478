//! The cgroups that tell a VM's memory.

use std::path::PathBuf;

use crate::cgroup::{Cgroups, Controller, Version};
use crate::discover::Vm;

/// A VM's own groups; they may differ in place, as each hierarchy has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Group of the memory controller, with its version.
    pub memory: Option<(PathBuf, Version)>,
    /// Name of that group within its hierarchy.
    pub name: Option<String>,
    /// Group of the second hierarchy, which alone accounts pressure.
    pub pressure: Option<PathBuf>,
}

impl Own {
    /// Those of now.
    pub fn find(cgroups: &Cgroups, vm: &Vm) -> Self {
        // As in `memory.usage_in_bytes` of version 1 and `memory.current`,
        // `memory.stat` is in every group that has the controller.
        let memory = cgroups.whole(vm, Controller::Memory, "memory.stat");
        let pressure = cgroups.whole(vm, Controller::Pressure, "memory.pressure");
        let name = memory.as_ref().map(|group| group.path.clone());
        Self {
            memory: memory.map(|group| (group.dir, group.version)),
            name,
            pressure: pressure.map(|group| group.dir),
        }
    }
}

//! Whom a VM belongs to and what it was promised, from every source that
//! tells without asking the guest or a daemon.
//!
//! The first source that names a thing wins: the labels file's entries, the
//! SMBIOS fields on the command line, the platform's naming, the cgroup's
//! path, libvirt's state file, the labels file's defaults.

pub mod cgroup;
mod file;
mod glob;
pub mod libvirt;
mod rules;
pub mod status;

use std::collections::BTreeMap;

pub use file::{LabelsFile, Poll};
pub use rules::{LabelsError, Rules};

use crate::discover::{VmInfo, cmdline};

/// Labels of a VM; `None` where no source tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Who pays.
    pub tenant: Option<String>,
    /// What for.
    pub project: Option<String>,
    /// Flavour or instance type.
    pub vm_type: Option<String>,
    /// Where.
    pub region: Option<String>,
    /// How important.
    pub priority: Option<String>,
    /// Class of service.
    pub qos_class: Option<String>,
    /// All others, by name.
    pub more: BTreeMap<String, String>,
}

impl Labels {
    /// These, and the other's where these lack one.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for (name, value) in other.more {
            self.more.entry(name).or_insert(value);
        }
        Self {
            tenant: self.tenant.or(other.tenant),
            project: self.project.or(other.project),
            vm_type: self.vm_type.or(other.vm_type),
            region: self.region.or(other.region),
            priority: self.priority.or(other.priority),
            qos_class: self.qos_class.or(other.qos_class),
            more: self.more,
        }
    }

    /// The further labels as a JSON object; `None` without any.
    #[must_use]
    pub fn more_json(&self) -> Option<String> {
        let some = !self.more.is_empty();
        some.then(|| serde_json::to_string(&self.more).ok())?
    }
}

/// What the command line and the platform's way of naming tell.
#[must_use]
pub fn of_command_line(info: &VmInfo, args: &[String]) -> Labels {
    let mut labels = Labels {
        more: cmdline::tags(args),
        ..Labels::default()
    };
    // KubeVirt joins namespace and name; a namespace is a DNS label, without
    // underscores.
    if info.platform == "kubevirt"
        && let Some((namespace, name)) = info.name.split_once('_')
    {
        labels.tenant = Some(namespace.to_owned());
        labels.more.insert("kubevirt_vmi".into(), name.to_owned());
    }
    labels
}

#[cfg(test)]
mod tests;

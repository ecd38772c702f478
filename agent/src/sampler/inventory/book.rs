//! Labels on their way from the inventory to the rows of the VMs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headroom_core::rows::VmRow;

use crate::discover::VmKey;
use crate::inventory::Labels;

/// Labels of every VM of the present window, shared by all its clones.
#[derive(Clone, Debug, Default)]
pub struct Book(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    labels: HashMap<VmKey, Labels>,
    problems: Vec<String>,
}

impl Book {
    /// Notes a VM's labels.
    pub fn write(&self, key: &VmKey, labels: &Labels) {
        let mut state = self.lock();
        if state.labels.get(key) != Some(labels) {
            state.labels.insert(key.clone(), labels.clone());
        }
    }

    /// Forgets all other VMs.
    pub fn keep(&self, live: &HashSet<&VmKey>) {
        self.lock().labels.retain(|key, _| live.contains(key));
    }

    /// Labels a VM's row; its machine type stays where no label tells a type.
    pub fn fill(&self, key: &VmKey, row: &mut VmRow) {
        let state = self.lock();
        let Some(labels) = state.labels.get(key) else {
            return;
        };
        row.tenant.clone_from(&labels.tenant);
        row.project.clone_from(&labels.project);
        if labels.vm_type.is_some() {
            row.vm_type.clone_from(&labels.vm_type);
        }
    }

    /// Notes what an event is to tell.
    pub fn report(&self, problem: String) {
        self.lock().problems.push(problem);
    }

    /// What was reported since the last call.
    pub fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().problems)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Rows of the VMs themselves: whose they are and what they may use.

mod book;
mod known;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use headroom_core::batch::Chunk;
use headroom_core::rows::InventoryRow;

pub use book::Book;
use known::Known;

use super::observe::{FamilyStatus, Observer, Scene};
use super::repeat::due;
use super::rows::Frame;
use crate::discover::VmKey;
use crate::inventory::{LabelsFile, Poll};

/// How old what was read of a VM may be, µs. A vCPU's status took 4 µs to read
/// on 6.18 with 2 CPUs, so that 200 vCPUs cost 0.01 % of a core; the lists in
/// it grow with the CPUs, and windows may be as short as a second.
const REFRESH_US: i64 = 10 * 1_000_000;

/// Where the inventory reads.
#[derive(Clone, Debug)]
pub struct Places {
    /// `/proc`.
    pub proc: PathBuf,
    /// libvirt's state files of running domains.
    pub libvirt: PathBuf,
}

/// Tells each VM when it is first seen, when anything about it changes, and
/// every ten minutes. A VM's own files are read when it is first seen and
/// once a window, but not more than each ten seconds; the labels file is looked at once a second.
pub struct InventoryFamily {
    places: Places,
    file: Option<LabelsFile>,
    broken: Option<String>,
    book: Book,
    known: BTreeMap<VmKey, Known>,
}

impl InventoryFamily {
    /// Labels go into `book` for the other rows.
    #[must_use]
    pub fn new(places: Places, labels: Option<PathBuf>, book: Book) -> Self {
        Self {
            places,
            file: labels.map(LabelsFile::new),
            broken: None,
            book,
            known: BTreeMap::new(),
        }
    }

    /// Whether other rules hold now.
    fn poll_labels(&mut self) -> bool {
        let Some(file) = &mut self.file else {
            return false;
        };
        match file.poll() {
            Poll::Same => false,
            Poll::Loaded => {
                tracing::info!(path = %file.path().display(), "labels loaded");
                self.broken = None;
                true
            }
            Poll::Broken(error) => {
                let problem = format!("{}: {error}", file.path().display());
                tracing::warn!(problem, "labels not loaded, the last good ones stay");
                self.book.report(problem.clone());
                self.broken = Some(problem);
                false
            }
        }
    }
}

impl Observer for InventoryFamily {
    fn status(&self) -> Vec<FamilyStatus> {
        vec![FamilyStatus {
            family: "inventory",
            source: Some(match self.file {
                Some(_) => "proc, libvirt, labels file".into(),
                None => "proc, libvirt".into(),
            }),
            reason: self.broken.clone(),
        }]
    }

    fn tick(&mut self, scene: &Scene<'_>) {
        let relabel = self.poll_labels();
        let rules = self.file.as_ref().map(LabelsFile::rules);
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let fresh = !self.known.contains_key(&vm.vm.key);
            let known = self.known.entry(vm.vm.key.clone()).or_default();
            if fresh {
                known.refresh(&self.places, vm.vm);
            }
            if fresh || relabel {
                known.label(rules, vm.vm);
                self.book.write(&vm.vm.key, known.labels());
            }
        }
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        let rules = self.file.as_ref().map(LabelsFile::rules);
        let mut rows: Vec<InventoryRow> = Vec::new();
        for vm in &scene.vms {
            let known = self.known.entry(vm.vm.key.clone()).or_default();
            let read = known
                .read
                .is_some_and(|at| (at..at + REFRESH_US).contains(&frame.ts));
            if vm.live && !read {
                known.read = Some(frame.ts);
                known.refresh(&self.places, vm.vm);
                known.label(rules, vm.vm);
                self.book.write(&vm.vm.key, known.labels());
            }
            let row = known.row(frame, vm.vm);
            let told = known.told.as_ref();
            let same = told.is_some_and(|told| {
                InventoryRow {
                    ts: row.ts,
                    ..told.clone()
                } == row
            });
            // One that is gone is not told again, unless nobody knows it yet.
            if (vm.live || told.is_none()) && (!same || due(told.map(|t| t.ts), frame.ts)) {
                known.told = Some(row.clone());
                rows.push(row);
            }
        }
        let live = scene.vms.iter().filter(|vm| vm.live).map(|vm| &vm.vm.key);
        let live: HashSet<&VmKey> = live.collect();
        self.known.retain(|key, _| live.contains(key));
        self.book.keep(&live);
        vec![Chunk::of(&rows)]
    }
}

#[cfg(test)]
mod tests;

//! Who had the CPUs that a VM waited for.

use std::collections::BTreeMap;

use headroom_abi::blame::{KINDS, kind};
use headroom_core::rows::BlameRow;

use super::observe::Scene;
use super::rows::{Frame, int, ratio};
use crate::discover::{Vm, VmKey};
use crate::files;

/// Names of the kinds, by [`kind`].
const NAMES: [(usize, &str); 6] = [
    (kind::OWN, "self"),
    (kind::HOST, "host"),
    (kind::KERNEL, "kernel"),
    (kind::INTERRUPT, "interrupt"),
    (kind::IDLE, "idle"),
    (kind::UNKNOWN, "unknown"),
];

/// What the vCPUs of one VM waited for in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Victim {
    /// Length of the window, ns.
    pub window_ns: u64,
    /// Run-queue latency of all vCPUs.
    pub ready_ns: u64,
    /// Throttled time of all vCPUs.
    pub throttled_ns: u64,
    /// `ready_ns` by kind.
    pub kinds: [u64; KINDS],
    /// A task of the host behind much of it.
    pub host_pid: u32,
}

/// A VM and what its vCPUs waited for.
pub struct Waited {
    /// Which VM.
    pub key: VmKey,
    /// How long, by kind.
    pub victim: Victim,
    /// What its open waits add to the matrix: time by VM number, ns.
    pub open: Vec<(u16, u64)>,
}

/// The matrix of who waited for whom, subtracted window by window.
#[derive(Default)]
pub struct Matrix {
    /// Figures of the last window by (victim, culprit); what was never seen
    /// began at 0.
    base: BTreeMap<(u16, u16), u64>,
    /// VM of each number at the last tick.
    owners: BTreeMap<u16, VmKey>,
    /// Cells of each victim at the last tick at which it lived: of the same
    /// moment as its threads' last readings.
    latest: BTreeMap<u16, Vec<(u16, u64)>>,
}

impl Matrix {
    /// Once a tick, after the threads were read: reads the rows of all VMs by
    /// `cells`. A number's new owner begins at what its cells say now.
    pub fn tick(&mut self, scene: &Scene<'_>, cells: &dyn Fn(u16) -> Vec<(u16, u64)>) {
        let mut fresh = Vec::new();
        for vm in &scene.vms {
            if let Some(number) = vm.index
                && self.owners.get(&number) != Some(&vm.vm.key)
            {
                self.owners.insert(number, vm.vm.key.clone());
                fresh.push(number);
            }
        }
        let live = scene.vms.iter().filter(|vm| vm.live);
        for victim in live.filter_map(|vm| vm.index) {
            let row = cells(victim);
            let whole_row = fresh.contains(&victim);
            for (culprit, ns) in &row {
                if whole_row || fresh.contains(culprit) {
                    self.base.insert((victim, *culprit), *ns);
                }
            }
            self.latest.insert(victim, row);
        }
    }

    /// Time that other VMs had the CPUs that `victim` waited for since the last
    /// call. `open` is what its open waits add to the cells.
    fn since(
        &mut self,
        victim: u16,
        cells: Vec<(u16, u64)>,
        open: &[(u16, u64)],
    ) -> Vec<(u16, u64)> {
        let mut now: BTreeMap<u16, u64> = cells.into_iter().collect();
        for (culprit, ns) in open {
            *now.entry(*culprit).or_default() += ns;
        }
        let mut spans = Vec::new();
        for (culprit, ns) in now {
            let base = self.base.entry((victim, culprit)).or_default();
            if ns > *base {
                spans.push((culprit, ns - *base));
                *base = ns;
            }
        }
        spans
    }

    /// Rows of the VMs in `victims`, with what their open waits add.
    pub fn window(
        &mut self,
        frame: &Frame<'_>,
        scene: &Scene<'_>,
        victims: &[Waited],
    ) -> Vec<BlameRow> {
        let mut latest = std::mem::take(&mut self.latest);
        let mut rows = Vec::new();
        for Waited { key, victim, open } in victims {
            let Some(vm) = scene.vms.iter().find(|vm| vm.vm.key == *key) else {
                continue;
            };
            let others = match vm.index {
                Some(number) => {
                    self.since(number, latest.remove(&number).unwrap_or_default(), open)
                }
                None => Vec::new(),
            };
            let parts = parts(scene, victim, &others);
            rows.extend(rows_of(frame, vm.vm, victim, parts));
        }
        rows
    }
}

/// A culprit and its time.
struct Part {
    kind: &'static str,
    culprit: String,
    name: String,
    ns: u64,
}

impl Part {
    fn same(kind: &'static str, text: String, ns: u64) -> Self {
        Self {
            kind,
            culprit: text.clone(),
            name: text,
            ns,
        }
    }
}

fn parts(scene: &Scene<'_>, victim: &Victim, others: &[(u16, u64)]) -> Vec<Part> {
    let mut parts = Vec::new();
    for (culprit, ns) in others {
        parts.push(match scene.by_index(*culprit) {
            Some(other) => Part {
                kind: "vm",
                culprit: other.vm.id.clone(),
                name: other.vm.info.name.clone(),
                ns: *ns,
            },
            None => Part::same("vm", "a vm without a number".to_owned(), *ns),
        });
    }
    // The kinds are the threads' own sums, the matrix that of the VM: what the
    // one has more than the other is another VM, we don't know which.
    let named: u64 = others.iter().map(|(_, ns)| ns).sum();
    let rest = victim.kinds[kind::VM].saturating_sub(named);
    if rest > victim.ready_ns / 1000 {
        parts.push(Part::same("vm", "another vm".to_owned(), rest));
    }
    for (kind, name) in NAMES {
        let who = match kind {
            kind::HOST | kind::KERNEL => task_name(victim.host_pid, kind == kind::KERNEL),
            _ => None,
        };
        let ns = victim.kinds[kind];
        parts.push(match who {
            Some(who) => Part {
                kind: name,
                culprit: who.clone(),
                name: who,
                ns,
            },
            None => Part::same(name, name.to_owned(), ns),
        });
    }
    parts.push(Part::same(
        "throttle",
        "throttle".to_owned(),
        victim.throttled_ns,
    ));
    parts.retain(|part| part.ns > 0);
    parts.sort_by_key(|part| std::cmp::Reverse(part.ns));
    parts
}

fn rows_of(frame: &Frame<'_>, vm: &Vm, victim: &Victim, parts: Vec<Part>) -> Vec<BlameRow> {
    let whole = |kind: &str| match kind {
        "throttle" => victim.ready_ns + victim.throttled_ns,
        _ => victim.ready_ns,
    };
    let row = |part: Part| BlameRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        vm_id: vm.id.clone(),
        vm_name: vm.info.name.clone(),
        window_ns: int(victim.window_ns),
        share: ratio(part.ns, whole(part.kind)),
        culprit_kind: part.kind.to_owned(),
        culprit: part.culprit,
        culprit_name: part.name,
        blame_ns: int(part.ns),
    };
    parts.into_iter().map(row).collect()
}

/// Name of a task of the host, if it is one of that sort.
fn task_name(pid: u32, kernel: bool) -> Option<String> {
    if pid == 0 {
        return None;
    }
    let comm = files::line(format!("/proc/{pid}/comm"))?;
    let is_kernel = std::fs::read(format!("/proc/{pid}/cmdline"))
        .ok()?
        .is_empty();
    (is_kernel == kernel).then_some(comm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_counted_once() {
        let mut matrix = Matrix::default();
        assert_eq!(matrix.since(1, vec![(2, 100)], &[(2, 50)]), [(2, 150)]);
        // The open part has ended and is in the cell now.
        assert_eq!(matrix.since(1, vec![(2, 160)], &[]), [(2, 10)]);
        assert_eq!(matrix.since(1, vec![(2, 160)], &[]), []);
        // Ended shorter than it looked: nothing is taken back.
        assert_eq!(matrix.since(1, vec![(2, 150)], &[]), []);
    }
}

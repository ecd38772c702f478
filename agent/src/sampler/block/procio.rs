//! What a VM's process asked of files, and how much of it the page cache
//! answered, from `/proc/P/io`.
//!
//! The kernel shows that file to who may trace the process: not to an agent
//! that has dropped its capabilities, of a process that has some or has
//! another user. Nothing else tells what was asked for: a hit makes no block
//! event, and cgroups account what reached the block layer only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use headroom_core::rows::VmIoRow;

use super::super::observe::{FamilyStatus, Scene};
use super::super::rows::{Frame, int};
use crate::clock::monotonic_ns;
use crate::counters::Counters;
use crate::discover::VmKey;

/// Cumulative figures of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    at_ns: u64,
    rchar: u64,
    wchar: u64,
    read_bytes: u64,
    write_bytes: u64,
    cancelled_write_bytes: u64,
}

/// The last readings of the processes that show theirs.
pub struct ProcIo {
    proc: PathBuf,
    base: BTreeMap<VmKey, Reading>,
    refused: Option<String>,
}

impl ProcIo {
    pub const fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            base: BTreeMap::new(),
            refused: None,
        }
    }

    pub fn status(&self) -> FamilyStatus {
        FamilyStatus {
            family: "page_cache",
            source: self.refused.is_none().then(|| "proc_io".to_owned()),
            reason: self.refused.clone(),
        }
    }

    /// Takes first readings of new VMs.
    pub fn tick(&mut self, scene: &Scene<'_>) {
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            if !self.base.contains_key(&vm.vm.key)
                && let Some(counters) = self.read(vm.vm.key.pid)
            {
                self.base.insert(vm.vm.key.clone(), counters);
            }
        }
    }

    /// One row a VM whose process shows its figures; none for the others.
    pub fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<VmIoRow> {
        let before = std::mem::take(&mut self.base);
        let mut rows = Vec::new();
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let Some(now) = self.read(vm.vm.key.pid) else {
                continue;
            };
            if let Some(then) = before.get(&vm.vm.key) {
                rows.push(VmIoRow {
                    ts: frame.ts,
                    host: frame.host.to_owned(),
                    vm_id: vm.vm.id.clone(),
                    vm_name: vm.vm.info.name.clone(),
                    ..row(then, &now)
                });
            }
            self.base.insert(vm.vm.key.clone(), now);
        }
        rows
    }

    fn read(&mut self, pid: u32) -> Option<Reading> {
        match std::fs::read_to_string(self.proc.join(format!("{pid}/io"))) {
            Ok(text) => {
                self.refused = None;
                parse(&text, monotonic_ns())
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.refused = Some(
                    "/proc/<pid>/io is shown to who may trace the VM's process: page-cache hits \
                     need agent.drop_capabilities = false"
                        .to_owned(),
                );
                None
            }
            // Gone, or a kernel without CONFIG_TASK_IO_ACCOUNTING.
            Err(_) => None,
        }
    }
}

fn row(then: &Reading, now: &Reading) -> VmIoRow {
    let less = |f: fn(&Reading) -> u64| f(now).saturating_sub(f(then));
    let (asked, device) = (less(|c| c.rchar), less(|c| c.read_bytes));
    let written = less(|c| c.write_bytes).saturating_sub(less(|c| c.cancelled_write_bytes));
    VmIoRow {
        window_ns: int(less(|c| c.at_ns)),
        asked_read_bytes: Some(int(asked)),
        asked_write_bytes: Some(int(less(|c| c.wchar))),
        device_read_bytes: Some(int(device)),
        device_write_bytes: Some(int(written)),
        cached_read_bytes: asked.checked_sub(device).map(int),
        ..VmIoRow::default()
    }
}

fn parse(text: &str, at_ns: u64) -> Option<Reading> {
    const NAMES: &[&str] = &[
        "rchar",
        "wchar",
        "read_bytes",
        "write_bytes",
        "cancelled_write_bytes",
    ];
    let io = Counters::parse(NAMES, text);
    Some(Reading {
        at_ns,
        rchar: io.get("rchar")?,
        wchar: io.get("wchar")?,
        read_bytes: io.get("read_bytes")?,
        write_bytes: io.get("write_bytes")?,
        cancelled_write_bytes: io.get("cancelled_write_bytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "rchar: 9000\nwchar: 50\nsyscr: 5\nsyscw: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";

    #[test]
    fn the_rest_of_what_was_asked_came_from_the_page_cache() {
        let now = parse(TEXT, 7).unwrap();
        let row = row(&Reading::default(), &now);
        assert_eq!(row.cached_read_bytes, Some(9000 - 4096));
        assert_eq!(row.device_write_bytes, Some(4096));
    }

    #[test]
    fn more_read_than_asked_tells_nothing() {
        let now = Reading {
            read_bytes: 4096,
            ..Reading::default()
        };
        assert_eq!(row(&Reading::default(), &now).cached_read_bytes, None);
    }

    #[test]
    fn our_own_file_is_read() {
        let text = std::fs::read_to_string("/proc/self/io");
        if let Ok(text) = text {
            assert!(parse(&text, 0).unwrap().rchar > 0);
        }
    }
}

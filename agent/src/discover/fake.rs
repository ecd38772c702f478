//! For tests.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::cmdline::{self, Vmm};
use super::{Vm, VmKey, VmThread};

/// A VM of QEMU in that process, with nothing told on its command line.
pub fn vm(pid: u32, threads: Vec<VmThread>) -> Vm {
    Vm {
        key: VmKey {
            boot: "b".into(),
            pid,
            start_ticks: 1,
            uuid: None,
        },
        info: Arc::new(cmdline::parse(Vmm::Qemu, &[], pid)),
        id: "a".to_owned(),
        threads,
    }
}

/// A `/proc` of our own making.
pub struct FakeProc(tempfile::TempDir);

impl FakeProc {
    pub fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.write(
            "sys/kernel/random/boot_id",
            "0a1b2c3d-0000-4000-8000-000000000000\n",
        );
        fake
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn task(&self, dir: &str, comm: &str, start: u64, flags: u64) {
        let id = dir.rsplit('/').next().unwrap();
        self.write(&format!("{dir}/comm"), &format!("{comm}\n"));
        self.write(
            &format!("{dir}/stat"),
            &format!("{id} ({comm}) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0"),
        );
    }

    pub fn process(&self, pid: u32, comm: &str, start: u64, cmdline: &str) {
        self.task(&pid.to_string(), comm, start, 0x0040_0000);
        self.write(
            &format!("{pid}/cmdline"),
            &cmdline
                .split_whitespace()
                .map(|a| format!("{a}\0"))
                .collect::<String>(),
        );
        self.thread(pid, pid, comm, start);
    }

    pub fn thread(&self, pid: u32, tid: u32, comm: &str, start: u64) {
        self.task(&format!("{pid}/task/{tid}"), comm, start, 0x0040_0000);
    }

    pub fn remove(&self, path: &str) {
        fs::remove_dir_all(self.path().join(path)).unwrap();
    }
}

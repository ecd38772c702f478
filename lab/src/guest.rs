//! One tiny KVM guest: a QEMU process with the lab's payload as firmware.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cgroup::Group;
use headroom_payload as payload;
use qemu::Files;
use spec::Backing;

mod memory;
mod qemu;
pub mod spec;

pub use memory::{Figures, Memory, Tally};
use spec::DISK_SECTORS;
pub use spec::{Disk, Spec};

/// From exec to the payload's first loop; 0.2 s is usual, 20 s is a machine
/// that will not make it.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running guest; dropping it ends and removes it.
pub struct Guest {
    spec: Spec,
    child: Child,
    memory: Memory,
    files: Files,
    // After `child` is gone, so that the cgroup is empty when it is removed.
    group: Option<Group>,
}

impl Guest {
    /// Starts a guest with its files in `dir`, in a cgroup of its own when
    /// `parent` is one, and waits until its payload runs.
    ///
    /// # Errors
    /// QEMU or KVM is missing, or the payload does not start.
    pub fn start(spec: &Spec, dir: &Path, parent: Option<&Group>) -> anyhow::Result<Self> {
        let group = parent.map(|g| g.child(&spec.name)).transpose()?;
        let file = |suffix: &str| dir.join(format!("{}.{suffix}", spec.name));
        let files = Files {
            rom: file("rom"),
            ram: file("ram"),
            qmp: file("qmp"),
            log: file("log"),
            disks: (0..spec.disks())
                .map(|n| file(&format!("disk{n}")))
                .collect(),
        };
        fs::write(&files.rom, payload::rom())
            .with_context(|| format!("write {}", files.rom.display()))?;
        let memory = Memory::create(&files.ram, spec)?;
        if matches!(
            spec.disk.as_ref().map(|d| &d.backing),
            Some(Backing::File { .. })
        ) {
            for disk in &files.disks {
                File::create(disk)?.set_len(u64::from(DISK_SECTORS) * 512)?;
            }
        }
        let child = qemu::command(spec, &files)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&files.log)?)
            .spawn()
            .context(
                "start qemu-system-x86_64; install it with: apt-get install qemu-system-x86",
            )?;
        let mut guest = Self {
            spec: spec.clone(),
            child,
            memory,
            files,
            group,
        };
        if let Some(group) = &guest.group {
            group.add(guest.child.id())?;
        }
        guest.wait_for_payload()?;
        Ok(guest)
    }

    /// Name given to QEMU.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Process id of its QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its knobs and what it measured of itself.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The cgroup of its own, if it has one.
    pub const fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Whether its QEMU still runs; it may have been killed.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn wait_for_payload(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START_LIMIT;
        while !self.memory.up()? {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(&self.files.log).unwrap_or_default();
                bail!(
                    "guest {} ended at once ({status}): {}",
                    self.spec.name,
                    said.trim()
                );
            }
            if Instant::now() > end {
                bail!(
                    "guest {} runs nothing after {START_LIMIT:?}; see `headroom doctor`",
                    self.spec.name
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let disks = self.memory.disks()?;
        if disks != self.spec.disks() {
            bail!(
                "guest {} found {disks} disks of {}",
                self.spec.name,
                self.spec.disks()
            );
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing of a lab guest is worth saving, so no orderly shutdown.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let Files {
            rom,
            ram,
            qmp,
            log,
            disks,
        } = &self.files;
        for file in [rom, ram, qmp, log].into_iter().chain(disks) {
            let _ = fs::remove_file(file);
        }
        drop(self.group.take());
    }
}

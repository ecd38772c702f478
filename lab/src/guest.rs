//! One tiny KVM guest: a QEMU process with the lab's payload as firmware.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cgroup::Group;
use crate::payload;

const QEMU: &str = "qemu-system-x86_64";
const MEMORY_MIB: u64 = 16;
/// From exec to the payload's first loop; 0.2 s is usual, 20 s is a machine
/// that will not make it.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What a guest shall be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name given to QEMU.
    pub name: String,
    /// vCPUs, 1..=16.
    pub vcpus: u32,
    /// Busy share of each vCPU, percent.
    pub load: u8,
    /// Whether it reads its disk all the time.
    pub io: bool,
}

/// A running guest; dropping it ends and removes it.
pub struct Guest {
    name: String,
    child: Child,
    memory: File,
    files: Vec<PathBuf>,
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
        let file = |suffix: &str| dir.join(format!("{}.{suffix}", spec.name));
        let (rom, ram, disk, log) = (file("rom"), file("ram"), file("disk"), file("log"));
        fs::write(&rom, payload::rom()).with_context(|| format!("write {}", rom.display()))?;
        let memory = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&ram)?;
        memory.set_len(MEMORY_MIB << 20)?;
        memory.write_all_at(&[spec.load, u8::from(spec.io)], payload::LOAD_AT)?;
        let mut command = qemu(spec, &rom, &ram, &file("qmp"));
        if spec.io {
            File::create(&disk)?.set_len(64 << 20)?;
            command
                .arg("-drive")
                .arg(format!("if=ide,format=raw,file={}", disk.display()));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context(
                "start qemu-system-x86_64; install it with: apt-get install qemu-system-x86",
            )?;
        let group = parent.map(|g| g.child(&spec.name)).transpose()?;
        let files = vec![rom, ram, disk, log.clone(), file("qmp")];
        let mut guest = Self {
            name: spec.name.clone(),
            child,
            memory,
            files,
            group,
        };
        if let Some(group) = &guest.group {
            group.add(guest.child.id())?;
        }
        guest.wait_for_payload(&log)?;
        Ok(guest)
    }

    /// Name given to QEMU.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of its QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sets the busy share of each vCPU, percent, at once.
    ///
    /// # Errors
    /// The guest's memory file can't be written.
    pub fn set_load(&self, percent: u8) -> anyhow::Result<()> {
        self.memory
            .write_all_at(&[percent.min(100)], payload::LOAD_AT)
            .context("write the guest's load")
    }

    /// Sectors the guest has read from its disk.
    ///
    /// # Errors
    /// The guest's memory file can't be read.
    pub fn sectors_read(&self) -> anyhow::Result<u32> {
        self.word(payload::SECTORS_AT)
    }

    fn word(&self, at: u64) -> anyhow::Result<u32> {
        let mut bytes = [0; 4];
        self.memory
            .read_exact_at(&mut bytes, at)
            .context("read the guest's memory")?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn wait_for_payload(&mut self, log: &Path) -> anyhow::Result<()> {
        let load: [u8; 1] = {
            let mut b = [0; 1];
            self.memory.read_exact_at(&mut b, payload::LOAD_AT)?;
            b
        };
        let end = Instant::now() + START_LIMIT;
        // An idle guest never counts loops: it is there when its process is.
        while load[0] > 0 && self.word(payload::LOOPS_AT)? == 0 {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!(
                    "guest {} ended at once ({status}): {}",
                    self.name,
                    said.trim()
                );
            }
            if Instant::now() > end {
                bail!(
                    "guest {} runs nothing after {START_LIMIT:?}; see `headroom doctor`",
                    self.name
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing of a lab guest is worth saving, so no orderly shutdown.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        drop(self.group.take());
    }
}

/// `setpriv` (util-linux, essential in Debian) lets the guest die with us
/// however we end, and then becomes QEMU, so the pid is QEMU's.
fn qemu(spec: &Spec, rom: &Path, ram: &Path, qmp: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU, "-accel", "kvm", "-cpu", "host"]);
    command.args([
        "-machine",
        "pc,memory-backend=ram",
        "-m",
        &MEMORY_MIB.to_string(),
    ]);
    command.arg("-object").arg(format!(
        "memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={},share=on",
        ram.display()
    ));
    command.args([
        "-smp",
        &spec.vcpus.to_string(),
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.args([
        "-name",
        &format!("guest={},debug-threads=on", spec.name),
        "-uuid",
        &uuid(&spec.name),
    ]);
    command.arg("-bios").arg(rom);
    command
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", qmp.display()));
    command
}

/// A random UUID (version 4), from the kernel.
fn uuid(name: &str) -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| name.to_owned(), |s| s.trim().to_owned())
}

//! The machine's own guests: QEMU on its KVM, with the payload of
//! `headroom lab` as firmware, each in a cgroup as under libvirt.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use headroom_payload::map;
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::Scope;
use crate::task::{by_name, wait_for};

const MEMORY_MIB: u64 = 16;
/// Of the machine's own disk, a power of two.
const DISK_SECTORS: u32 = 128 * 1024;
/// A legacy virtio disk, the kind that the payload drives.
const DISK: &str =
    "virtio-blk-pci,drive=d0,iothread=io0,disable-modern=on,disable-legacy=off,romfile=";
/// The guests of one scenario start together, within 3 s.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What a guest may have beside its memory.
pub enum Device<'a> {
    /// A block device that it reads when told to.
    Disk(&'a str),
    /// A tap that QEMU makes, with so many queues. No device of the guest is
    /// behind it: QEMU throws away what it reads from it.
    Tap {
        /// Its name.
        name: &'a str,
        /// Its queues.
        queues: u32,
    },
}

/// A guest. Nothing ends it but the machine.
pub struct Vm {
    /// As QEMU is told.
    pub name: String,
    /// Thread of its one vCPU.
    pub tid: u32,
    /// Its cgroup.
    pub scope: Scope,
    memory: File,
    child: Child,
    log: String,
}

impl Vm {
    /// Starts `vmNUMBER` with a busy share in percent and waits until its vCPU
    /// has a thread.
    pub fn start(number: u32, load: u8, device: Option<&Device<'_>>) -> anyhow::Result<Self> {
        let name = format!("vm{number}");
        let file = |suffix: &str| format!("/dev/shm/{name}.{suffix}");
        let (rom, ram, log) = (file("rom"), file("ram"), file("log"));
        fs::write(&rom, headroom_payload::rom()).context("write the firmware")?;
        let memory = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&ram)?;
        memory.set_len(MEMORY_MIB << 20)?;
        memory.write_all_at(&[load, 0], map::LOAD)?;
        // One vCPU; a disk of 64 MiB, one sector at a time, 100 a second.
        for (knob, value) in [
            (map::VCPUS, 1),
            (map::SPAN, DISK_SECTORS - 1),
            (map::SECTORS, 1),
            (map::DEPTH, 1),
            (map::INTERVAL_US, 10_000),
        ] {
            memory.write_all_at(&u32::to_le_bytes(value), knob)?;
        }
        let mut command = qemu(number, &name, &rom, &ram);
        if let Some(device) = device {
            command.args(arguments(device));
        }
        let mut child = command
            .stderr(File::create(&log)?)
            .spawn()
            .context("start QEMU")?;
        let scope = Scope::create(number, &name)?;
        scope.add(child.id())?;
        let tid = wait_for("a vCPU's thread", START_LIMIT, || {
            ensure!(
                child.try_wait()?.is_none(),
                "{name} ended: {}",
                fs::read_to_string(&log)?
            );
            by_name(child.id(), "CPU 0/KVM")
        })?;
        Ok(Self {
            name,
            tid,
            scope,
            memory,
            child,
            log,
        })
    }

    /// Starts some and waits until all run.
    pub fn several(count: u32, load: u8) -> anyhow::Result<Vec<Self>> {
        let mut vms = Vec::new();
        for number in 1..=count {
            vms.push(Self::start(number, load, None)?);
        }
        for vm in &mut vms {
            vm.wait_until_it_runs()?;
        }
        Ok(vms)
    }

    /// Waits until the payload has counted a loop, which it does at any load
    /// but 0.
    pub fn wait_until_it_runs(&mut self) -> anyhow::Result<()> {
        wait_for("a guest to run", START_LIMIT, || {
            self.is_alive()?;
            Ok((self.word(map::LOOPS)? > 0).then_some(()))
        })
    }

    /// Fails with what QEMU said if it ended.
    pub fn is_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(&self.log)?;
            bail!("{} ended, {status}: {said}", self.name);
        }
        Ok(())
    }

    /// Sets its busy share in percent.
    pub fn set_load(&self, percent: u8) -> anyhow::Result<()> {
        self.memory
            .write_all_at(&[percent], map::LOAD)
            .context("write the guest's memory")
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("signal a guest")
    }

    /// Whether it shall read its disk, a sector at a time, at most 100 a second.
    pub fn read_disk(&self, yes: bool) -> anyhow::Result<()> {
        self.memory
            .write_all_at(&[u8::from(yes)], map::DISK_ON)
            .context("write the guest's memory")
    }

    /// Sectors that it has read, the lower half of the count.
    pub fn sectors_read(&self) -> anyhow::Result<u32> {
        self.word(map::STATE + map::DONE)
    }

    fn word(&self, at: u64) -> anyhow::Result<u32> {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

fn arguments(device: &Device<'_>) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    match device {
        Device::Disk(path) => {
            // Past the machine's page cache: each read reaches its disk.
            let drive = format!("driver=host_device,node-name=d0,filename={path},cache.direct=on");
            let thread = "iothread,id=io0,poll-max-ns=0";
            words(&["-blockdev", &drive, "-object", thread, "-device", DISK])
        }
        Device::Tap { name, queues } => {
            let how = "script=no,downscript=no";
            let tap = format!("tap,id=n0,ifname={name},{how},queues={queues}");
            words(&["-netdev", &tap])
        }
    }
}

fn qemu(number: u32, name: &str, rom: &str, ram: &str) -> Command {
    let memory = format!("memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={ram},share=on");
    let mut command = Command::new("/usr/bin/qemu-system-x86_64");
    command
        .args(["-accel", "kvm", "-cpu", "host"])
        .args(["-machine", "pc,memory-backend=ram", "-object", &memory])
        .args(["-m", &MEMORY_MIB.to_string(), "-smp", "1"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-name", &format!("guest={name},debug-threads=on")])
        .args(["-uuid", &format!("00000000-0000-4000-8000-{number:012}")])
        .args(["-bios", rom])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

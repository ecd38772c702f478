//! The command line of a guest's QEMU.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::spec::{Aio, Backing, DISK_SECTORS, Disk, Layout, OWN_MIB, Spec};

const QEMU: &str = "qemu-system-x86_64";

/// Files of a guest.
#[derive(Clone, Debug)]
pub struct Files {
    /// Firmware.
    pub rom: PathBuf,
    /// The payload's memory, which the host maps too.
    pub ram: PathBuf,
    /// QMP socket.
    pub qmp: PathBuf,
    /// What QEMU says.
    pub log: PathBuf,
    /// Data of file-backed disks.
    pub disks: Vec<PathBuf>,
}

/// `setpriv` (util-linux, essential in Debian) lets the guest die with us
/// however we end, and then becomes QEMU, so the pid is QEMU's.
pub fn command(spec: &Spec, files: &Files) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU, "-accel", "kvm", "-cpu", "host"]);
    command.args(memory(spec, files));
    command.args(["-smp", &spec.vcpus.to_string()]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.args([
        "-name",
        &format!("guest={},debug-threads=on", spec.name),
        "-uuid",
        &uuid(&spec.name),
    ]);
    command.arg("-bios").arg(&files.rom);
    command
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", files.qmp.display()));
    if let Some(disk) = &spec.disk {
        for n in 0..spec.disks() {
            let file = usize::try_from(n).ok().and_then(|n| files.disks.get(n));
            command.args(disk_arguments(disk, n, spec.vcpus, file));
        }
    }
    command
}

/// The first 16 MiB are a shared file; memory above is anonymous and comes as
/// a second NUMA node of the guest, because QEMU takes one backend a node.
fn memory(spec: &Spec, files: &Files) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "-m".into(),
        spec.memory_mib.to_string().into(),
        "-object".into(),
        format!(
            "memory-backend-file,id=ram,size={OWN_MIB}M,mem-path={},share=on",
            files.ram.display()
        )
        .into(),
        "-machine".into(),
    ];
    let above = spec.memory_mib.saturating_sub(OWN_MIB);
    if above == 0 {
        arguments.push("pc,memory-backend=ram".into());
        return arguments;
    }
    arguments.push("pc".into());
    for text in [
        "-object".to_owned(),
        format!("memory-backend-ram,id=more,size={above}M"),
        "-numa".to_owned(),
        format!("node,nodeid=0,cpus=0-{},memdev=ram", spec.vcpus - 1),
        "-numa".to_owned(),
        "node,nodeid=1,memdev=more".to_owned(),
    ] {
        arguments.push(text.into());
    }
    arguments
}

fn disk_arguments(disk: &Disk, n: u32, vcpus: u32, file: Option<&PathBuf>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    let mut device = format!("virtio-blk-pci,drive=disk{n},disable-modern=on,queue-size=256");
    let queues = if disk.layout == Layout::QueuePerVcpu {
        vcpus
    } else {
        1
    };
    device += &format!(",num-queues={queues}");
    if disk.iothread {
        let poll = disk.poll.as_nanos();
        option(
            "-object",
            format!("iothread,id=io{n},poll-max-ns={poll}").into(),
        );
        device += &format!(",iothread=io{n}");
    }
    let node = match &disk.backing {
        Backing::Null { latency } => OsString::from(format!(
            "driver=null-co,node-name=disk{n},size={},latency-ns={},read-zeroes=on",
            u64::from(DISK_SECTORS) * 512,
            latency.as_nanos()
        )),
        Backing::File { aio, cache } => {
            let switch = |on| if on { "on" } else { "off" };
            device += &format!(",write-cache={}", switch(cache.write_cache()));
            let mut node = OsString::from(format!(
                "driver=file,node-name=disk{n},aio={},cache.direct={},cache.no-flush={},filename=",
                match aio {
                    Aio::IoUring => "io_uring",
                    Aio::Native => "native",
                    Aio::Threads => "threads",
                },
                switch(cache.direct()),
                switch(*cache == super::spec::Cache::Unsafe),
            ));
            node.push(file.map_or_else(Default::default, |f| f.as_os_str().to_owned()));
            node
        }
    };
    option("-blockdev", node);
    option("-device", device.into());
    arguments
}

/// A random UUID (version 4), from the kernel.
fn uuid(name: &str) -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| name.to_owned(), |s| s.trim().to_owned())
}

//! The machine's whole file system: an initramfs of the scenario's programs.

mod cpio;
mod modules;

use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifact::{Binaries, output};
use crate::initrd::cpio::Archive;
use crate::message::{AGENT, MODULES, PLAN};
use crate::{Kernel, LabError, Scenario};

/// QEMU asks for it where KVM has no virtual APIC.
const KVMVAPIC: &str = "/usr/share/qemu/kvmvapic.bin";

/// Directories that are mounted over or written to.
const EMPTY: [&str; 6] = ["/dev", "/proc", "/sys", "/tmp", "/run", "/etc"];

/// Writes the archive for that kernel and scenario. The kernel does not need
/// it compressed, and unpacking is what the machine would wait for.
pub(crate) fn build(
    to: &Path,
    kernel: &Kernel,
    binaries: &Binaries,
    scenario: Scenario,
) -> Result<(), LabError> {
    let file = File::create(to).map_err(|e| LabError::io("write the initramfs", to, e))?;
    let mut archive = Archive::new(BufWriter::new(file), to);
    for dir in EMPTY {
        archive.directory(dir)?;
    }
    // Before anything is mounted the kernel and the Rust runtime open these.
    archive.device("/dev/console", 5, 1)?;
    archive.device("/dev/null", 1, 3)?;
    archive.program("/init", &binaries.guest)?;
    archive.program(AGENT, &binaries.agent)?;
    archive.program("/bin/busybox", &program("busybox", "busybox-static")?)?;
    let shape = scenario.shape();
    let mut order = Vec::new();
    for module in modules::closure(kernel, shape.modules)? {
        let path = format!("/modules/{}.ko", module.name);
        archive.bytes(&path, &module.bytes)?;
        order.push(path);
    }
    archive.bytes(MODULES, order.join("\n").as_bytes())?;
    archive.bytes(PLAN, scenario.name().as_bytes())?;
    if shape.kvm {
        let qemu = program("qemu-system-x86_64", "qemu-system-x86")?;
        for library in libraries(&qemu)? {
            archive.program(&library.to_string_lossy(), &library)?;
        }
        archive.program("/usr/bin/qemu-system-x86_64", &qemu)?;
        archive.program(KVMVAPIC, Path::new(KVMVAPIC))?;
    }
    archive.finish()
}

/// Where a program is: in `$PATH` or where only root looks.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf, LabError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = dirs.into_iter().map(|d| d.join(name)).find(|p| p.is_file());
    let found = found.ok_or_else(|| LabError::Missing {
        program: name.to_owned(),
        package: package.to_owned(),
    })?;
    fs::canonicalize(&found).map_err(|e| LabError::io("follow", &found, e))
}

/// The loader and the libraries of a program, at the paths it looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, LabError> {
    let list = output(Command::new("ldd").arg(program))?;
    let word = |line: &str| {
        line.split_whitespace()
            .find(|w| w.starts_with('/'))
            .map(PathBuf::from)
    };
    Ok(list.lines().filter_map(word).collect())
}

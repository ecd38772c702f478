//! Kernel modules with what they depend on. Debian's package has no
//! `modules.dep` (it is made at installation), so the modules' own `.modinfo`
//! is asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Kernel, LabError};

/// A module ready to be loaded.
pub(super) struct Module {
    /// With underscores, as the kernel names it.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The modules in the order to load them: after what they depend on. What is
/// built into the kernel is left out.
pub(super) fn closure(kernel: &Kernel, names: &[&str]) -> Result<Vec<Module>, LabError> {
    let mut files = BTreeMap::new();
    list(&kernel.modules, &mut files)?;
    let path = kernel.modules.join("modules.builtin");
    let builtin = fs::read_to_string(&path).map_err(|e| LabError::io("read", &path, e))?;
    let builtin: Vec<String> = builtin
        .lines()
        .filter_map(|l| name_of(Path::new(l)))
        .collect();
    let mut loaded: Vec<Module> = Vec::new();
    for name in names {
        add(
            kernel,
            &files,
            &builtin,
            &name.replace('-', "_"),
            &mut loaded,
        )?;
    }
    Ok(loaded)
}

fn add(
    kernel: &Kernel,
    files: &BTreeMap<String, PathBuf>,
    builtin: &[String],
    name: &str,
    loaded: &mut Vec<Module>,
) -> Result<(), LabError> {
    if loaded.iter().any(|m| m.name == name) || builtin.iter().any(|b| b == name) {
        return Ok(());
    }
    let path = files.get(name).ok_or_else(|| LabError::NoModule {
        release: kernel.release.clone(),
        module: name.to_owned(),
    })?;
    let bytes = contents(path)?;
    for needed in dependencies(&bytes) {
        add(kernel, files, builtin, &needed, loaded)?;
    }
    loaded.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

fn list(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), LabError> {
    let entries = fs::read_dir(dir).map_err(|e| LabError::io("list modules", dir, e))?;
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        // A link `build` may lead out of the package.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&path, files)?,
            _ => files.extend(name_of(&path).map(|name| (name, path))),
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    Some(file.split_once(".ko")?.0.replace('-', "_"))
}

/// 6.1's modules are plain, later ones compressed.
fn contents(path: &Path) -> Result<Vec<u8>, LabError> {
    if path.extension().is_none_or(|e| e != "xz") {
        return fs::read(path).map_err(|e| LabError::io("read a module", path, e));
    }
    let xz = Command::new("xz").arg("-dc").arg(path).output();
    let output = xz.map_err(|e| LabError::io("start a program", Path::new("xz"), e))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(LabError::Command {
            command: format!("xz -dc {}", path.display()),
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

/// `.modinfo` is a list of `key=value`, each ended by a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    let strings = module.split(|b| *b == 0);
    let value = strings.filter_map(|s| s.strip_prefix(b"depends=")).next();
    let names = String::from_utf8_lossy(value.unwrap_or_default()).replace('-', "_");
    let names = names.split(',').filter(|n| !n.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let of = |text: &str| dependencies(text.as_bytes());
        assert_eq!(
            of("license=GPL\0depends=zsmalloc,lz4-compress\0retpoline=Y\0"),
            ["zsmalloc", "lz4_compress"]
        );
        assert!(of("name=kvm\0depends=\0").is_empty());
        assert!(of("no such key").is_empty());
    }

    #[test]
    fn modules_are_named_as_the_kernel_names_them() {
        let name = |path| name_of(Path::new(path));
        assert_eq!(
            name("kernel/arch/x86/kvm/kvm-amd.ko.xz").as_deref(),
            Some("kvm_amd")
        );
        assert_eq!(name("kernel/fs/ext4.ko").as_deref(), Some("ext4"));
        assert_eq!(name("modules.order"), None);
    }
}

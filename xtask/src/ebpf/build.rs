//! One build, the same bytes wherever the repository lies.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::ebpf::shape;
use crate::ebpf::toolchain::{Toolchain, cache, text};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object.
///
/// # Errors
/// The compiler's, with its output.
pub fn build(root: &Path, tools: &Toolchain, source: &str, log: bool) -> anyhow::Result<Vec<u8>> {
    let place = Place::make(root)?;
    // First: the folder that it fills is left out of the object by name.
    let mut fetch = Command::new(&tools.cargo);
    fetch
        .current_dir(place.0.join("ebpf/probes"))
        .env("RUSTC", &tools.rustc);
    text(fetch.args(["fetch", "--locked"])).context("fetching the crates of the BPF programs")?;
    let target = cache()?.join(if log {
        "ebpf-target-log"
    } else {
        "ebpf-target"
    });
    let mut command = Command::new(&tools.cargo);
    command
        .current_dir(place.0.join("ebpf/probes"))
        .env("RUSTC", &tools.rustc)
        // `-Z build-std` on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(tools)?)
        .env("CARGO_TARGET_DIR", &target)
        .env("HEADROOM_BPF_SOURCE", source)
        .env("PATH", path(&tools.linker_dir)?)
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ]);
    if log {
        command.args(["--features", "log"]);
    }
    for variable in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(variable);
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_BUILD_") {
            command.env_remove(name.as_ref());
        }
    }
    text(&mut command).context("building the BPF programs")?;
    let built = target.join(TARGET).join("release/headroom-probes");
    let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    shape::stripped(&bytes)
}

/// Flags, separated as cargo wants them.
fn flags(tools: &Toolchain) -> anyhow::Result<OsString> {
    let mut flags: Vec<String> = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"]
        .map(str::to_owned)
        .into();
    // memcpy and its kin as calls are a mistake in these programs: refuse them
    // at link time.
    flags.push("-Clink-arg=--disable-memory-builtins".to_owned());
    let mut remap = |from: &Path, to: &str| -> anyhow::Result<()> {
        let from = from.to_str().context("a path is not UTF-8")?;
        flags.push(format!("--remap-path-prefix={from}={to}"));
        Ok(())
    };
    remap(&tools.rust_src, "/rust")?;
    remap(&tools.rust_src.canonicalize()?, "/rust")?;
    remap(Path::new(Place::PATH), "/headroom")?;
    let registry = cargo_home()?.join("registry/src");
    for index in fs::read_dir(&registry).into_iter().flatten() {
        remap(&index?.path(), "/registry")?;
    }
    Ok(flags.join("\x1f").into())
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"))
}

fn path(first: &Path) -> anyhow::Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = [first.to_owned()]
        .into_iter()
        .chain(env::split_paths(&rest));
    Ok(env::join_paths(all)?)
}

/// A copy of the sources at a path that is the same on every machine: cargo
/// hashes the place of path dependencies into every symbol.
struct Place(PathBuf);

impl Place {
    const PATH: &str = "/tmp/headroom-ebpf";

    fn make(root: &Path) -> anyhow::Result<Self> {
        let place = Self(PathBuf::from(Self::PATH));
        // The folder is the lock: two builds never mix their sources.
        fs::create_dir(&place.0).with_context(|| {
            format!(
                "making {}; another build runs, or one was killed: remove it then",
                Self::PATH
            )
        })?;
        for part in ["ebpf/abi", "ebpf/probes"] {
            copy(&root.join(part), &place.0.join(part))?;
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Left behind, it stops the next build with a clear message.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let (entry, name) = entry.map(|e| (e.path(), e.file_name()))?;
        if name == "target" {
            continue;
        }
        if entry.is_dir() {
            copy(&entry, &to.join(name))?;
        } else if entry.is_file() {
            fs::copy(&entry, to.join(name))
                .with_context(|| format!("copying {}", entry.display()))?;
        } else {
            bail!("{} is neither file nor folder", entry.display());
        }
    }
    Ok(())
}

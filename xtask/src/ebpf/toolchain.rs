//! A compiler with the sources of `core`, and the linker for its LLVM.
//!
//! Two kinds fit: rustup's nightly with rust-src, or Debian's rustc-web, whose
//! source package lies in the archive. Nothing is ever downloaded by rustup:
//! what it does not have is taken from Debian.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// The release whose output the committed object is.
const LINKER_VERSION: &str = "0.13.0";

/// What builds the object.
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// Folder of the sources of `core`, kept out of the object.
    pub rust_src: PathBuf,
    /// Folder of bpf-linker.
    pub linker_dir: PathBuf,
    /// For the manifest.
    pub compiler: String,
    /// For the manifest.
    pub linker: String,
}

/// Finds a toolchain, installs Debian's if need be.
///
/// # Errors
/// There is none and it can't be installed here.
pub fn find() -> anyhow::Result<Toolchain> {
    let compiler = match nightly()? {
        Some(compiler) => compiler,
        None => debian()?,
    };
    let version = text(Command::new(&compiler.rustc).arg("-vV"))?;
    let field = |name: &str| {
        let line = version.lines().find_map(|l| l.strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("rustc -vV has no {name}"))
    };
    let llvm = field("LLVM version:")?;
    let major = llvm.split('.').next().unwrap_or(llvm);
    let linker = linker(major)?;
    Ok(Toolchain {
        compiler: format!(
            "{}, LLVM {llvm}",
            version.lines().next().unwrap_or_default()
        ),
        linker: linker.version,
        linker_dir: linker.dir,
        rustc: compiler.rustc,
        cargo: compiler.cargo,
        rust_src: compiler.rust_src,
    })
}

struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    rust_src: PathBuf,
}

impl Compiler {
    fn at(sysroot: &Path) -> Option<Self> {
        let made = Self {
            rustc: sysroot.join("bin/rustc"),
            cargo: sysroot.join("bin/cargo"),
            rust_src: sysroot.join("lib/rustlib/src/rust"),
        };
        let whole = made.rust_src.join("library/core/src/lib.rs").is_file()
            && made.rustc.is_file()
            && made.cargo.is_file();
        whole.then_some(made)
    }
}

/// rustup's nightly, where it has rust-src.
fn nightly() -> anyhow::Result<Option<Compiler>> {
    let Ok(list) = text(Command::new("rustup").args(["toolchain", "list"])) else {
        return Ok(None);
    };
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with("nightly")) {
        let sysroot =
            text(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]))?;
        if let Some(found) = Compiler::at(Path::new(sysroot.trim())) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Debian's rustc-web, installed if it is missing.
fn debian() -> anyhow::Result<Compiler> {
    let usr = Path::new("/usr");
    if let Some(found) = Compiler::at(usr) {
        return Ok(found);
    }
    apt(&["rustc-web", "cargo-web", "rust-web-src"])?;
    Compiler::at(usr).context("rustc-web is installed but /usr holds no compiler with sources")
}

fn apt(packages: &[&str]) -> anyhow::Result<()> {
    let wanted = packages.join(" ");
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "neither rustup's nightly with rust-src nor Debian's {wanted} is here; \
         run `rustup component add rust-src --toolchain nightly` or use Debian 12"
    );
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "-y",
            "--no-install-recommends",
        ]);
        text(command.args(packages)).map(drop)
    };
    install()
        .or_else(|_| text(Command::new("apt-get").arg("update")).and_then(|_| install()))
        .with_context(|| format!("apt-get install {wanted} failed; run it as root"))
}

struct Linker {
    dir: PathBuf,
    version: String,
}

/// bpf-linker of the compiler's LLVM, installed into the cache if missing.
fn linker(major: &str) -> anyhow::Result<Linker> {
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let config = llvm.join("bin/llvm-config");
    if !config.is_file() {
        apt(&[&format!("llvm-{major}-dev")])?;
    }
    let llvm_version = text(Command::new(&config).arg("--version"))?;
    // One folder an LLVM: a linker of another major can't read the bitcode.
    let tools = cache()?.join("tools");
    let mut candidates = vec![tools.join(format!("llvm-{major}/bin")), tools.join("bin")];
    let Some(dir) = candidates.iter().find(|dir| fits(dir, major)).cloned() else {
        let dir = candidates.swap_remove(0);
        install_linker(&dir, &llvm, major)?;
        ensure!(
            fits(&dir, major),
            "bpf-linker was installed but does not run or has another LLVM"
        );
        return Ok(Linker {
            dir,
            version: named(&llvm_version),
        });
    };
    Ok(Linker {
        dir,
        version: named(&llvm_version),
    })
}

fn named(llvm: &str) -> String {
    format!("bpf-linker {LINKER_VERSION}, LLVM {}", llvm.trim())
}

/// Whether a folder holds the linker of our release, linked with that LLVM.
fn fits(dir: &Path, major: &str) -> bool {
    let linker = dir.join("bpf-linker");
    let version = text(Command::new(&linker).arg("--version")).unwrap_or_default();
    let libraries = text(Command::new("ldd").arg(&linker)).unwrap_or_default();
    version.trim() == format!("bpf-linker {LINKER_VERSION}")
        && libraries.contains(&format!("libLLVM.so.{major}."))
}

fn install_linker(dir: &Path, llvm: &Path, major: &str) -> anyhow::Result<()> {
    let root = dir.parent().context("the tools folder has a parent")?;
    let mut command = Command::new("cargo");
    command
        .env("LLVM_PREFIX", llvm)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
            "--root",
        ])
        .arg(root);
    text(&mut command)
        .map(drop)
        .context("installing bpf-linker")
}

/// Tools and build outputs outside the repository.
pub fn cache() -> anyhow::Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("headroom"))
}

/// Runs a command and returns what it printed; its complaints are in the error.
pub fn text(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .with_context(|| format!("running {shown}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}\n{}", output.status, complaint.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed no UTF-8"))
}

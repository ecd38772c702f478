//! `cargo xtask ebpf`: the BPF object, from its sources.
//!
//! The built object lies in the repository so that `cargo build` needs no BPF
//! toolchain. `--check` proves that it comes from the committed sources.

mod build;
mod manifest;
mod shape;
mod source;
mod toolchain;

pub use toolchain::text;

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::ebpf::manifest::Manifest;
use crate::ebpf::shape::Shape;

const OBJECT: &str = "ebpf/object/headroom.bpf.o";
const MANIFEST: &str = "ebpf/object/manifest.json";
/// Where an object with diagnostics goes; never committed.
const LOG_OBJECT: &str = "target/ebpf/headroom-log.bpf.o";

/// Options of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Build apart and fail unless the committed object comes from the committed sources.
    #[arg(long, conflicts_with = "log")]
    check: bool,
    /// With the probes' own diagnostics (aya-log), into target/ebpf; never shipped.
    #[arg(long)]
    log: bool,
}

/// Runs the task.
///
/// # Errors
/// A tool is missing and can't be installed, the build fails, or the check does.
pub fn run(root: &Path, args: &Args) -> anyhow::Result<()> {
    let source = source::hash(root)?;
    let committed = args.check.then(|| Committed::read(root)).transpose()?;
    if let Some(committed) = &committed {
        committed.agrees_with_itself(&source)?;
    }
    let toolchain = toolchain::find()?;
    eprintln(&format!(
        "building with {}, {}",
        toolchain.compiler, toolchain.linker
    ));
    let object = build::build(root, &toolchain, &source, args.log)?;
    let built = Manifest::of(&toolchain, &source, &object);
    match committed {
        Some(committed) => committed.same_as(&built, &object),
        None if args.log => write(&root.join(LOG_OBJECT), &object),
        None => {
            write(&root.join(OBJECT), &object)?;
            write(&root.join(MANIFEST), built.to_json()?.as_bytes())
        }
    }
}

struct Committed {
    object: Vec<u8>,
    manifest: Manifest,
}

impl Committed {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let read =
            |file: &str| fs::read(root.join(file)).with_context(|| format!("reading {file}"));
        Ok(Self {
            object: read(OBJECT)?,
            manifest: Manifest::from_json(&read(MANIFEST)?)?,
        })
    }

    /// What needs no build: manifest, object and sources name each other.
    fn agrees_with_itself(&self, source: &str) -> anyhow::Result<()> {
        let header = Shape::of(&self.object)?.source;
        ensure!(
            self.manifest.source_sha256 == source && header == source,
            "the BPF sources ({source}) are not those of {OBJECT} ({header}) and {MANIFEST} ({}); \
             run `cargo xtask ebpf` and commit the result",
            self.manifest.source_sha256
        );
        ensure!(
            self.manifest.object_sha256 == source::sha256(&self.object),
            "{OBJECT} is not the object of {MANIFEST}; run `cargo xtask ebpf` and commit the result"
        );
        Ok(())
    }

    fn same_as(&self, built: &Manifest, object: &[u8]) -> anyhow::Result<()> {
        let (ours, theirs) = (&self.manifest, built);
        if (&ours.compiler, &ours.linker) == (&theirs.compiler, &theirs.linker) {
            if self.object != object {
                bail!(
                    "{OBJECT} differs from what its sources give ({} built here); \
                     run `cargo xtask ebpf` and commit the result",
                    built.object_sha256
                );
            }
            eprintln("the committed object is, byte for byte, what its sources give");
            return Ok(());
        }
        let (committed, rebuilt) = (Shape::of(&self.object)?, Shape::of(object)?);
        ensure!(
            committed == rebuilt,
            "{OBJECT} and a rebuild differ beyond their compilers: {committed:?}, rebuilt {rebuilt:?}"
        );
        eprintln(&format!(
            "the committed object was built by {}, {}: another toolchain than here, so sources, \
             programs and maps were compared (all equal), not bytes",
            ours.compiler, ours.linker
        ));
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = path.display();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("writing {shown}"))?;
    eprintln(&format!("wrote {shown}, {} bytes", bytes.len()));
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "the progress of a task, for who runs it"
)]
fn eprintln(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_names_the_committed_sources() {
        let root = crate::root().unwrap();
        let committed = Committed::read(&root).unwrap();
        committed
            .agrees_with_itself(&source::hash(&root).unwrap())
            .unwrap();
        assert!(committed.agrees_with_itself(&"0".repeat(64)).is_err());
    }

    #[test]
    fn a_changed_object_is_found_out() {
        let root = crate::root().unwrap();
        let mut committed = Committed::read(&root).unwrap();
        let source = committed.manifest.source_sha256.clone();
        let last = committed.object.len() - 1;
        committed.object[last] ^= 1;
        assert!(committed.agrees_with_itself(&source).is_err());
    }

    #[test]
    fn the_object_has_both_kinds_of_programs_and_its_maps() {
        let root = crate::root().unwrap();
        let shape = Shape::of(&Committed::read(&root).unwrap().object).unwrap();
        let hooks = |kind: &str| -> Vec<&str> {
            let prefix = format!("{kind}/");
            let programs = shape.programs.iter();
            programs.filter_map(|p| p.strip_prefix(&prefix)).collect()
        };
        let (raw, btf) = (hooks("raw_tp"), hooks("tp_btf"));
        for hook in ["sched_waking", "sched_switch", "kfree_skb"] {
            assert!(btf.contains(&hook), "{hook} is not in {btf:?}");
        }
        let alone = |hook: &&&str| !raw.contains(*hook);
        assert_eq!(btf.iter().find(alone), None, "no raw twin");
        // kvm may be a module, whose types are not the kernel's: raw only.
        let alone = |hook: &&&str| !btf.contains(*hook) && !hook.starts_with("kvm_");
        assert_eq!(raw.iter().find(alone), None, "no tp_btf twin");
        for map in ["BLAME", "CPU_STATS", "NET_DROPS", "PID_SLOTS", "SLOT_STATS"] {
            assert!(shape.maps.contains_key(map), "{map} is not in {shape:?}");
        }
    }

    #[test]
    fn another_toolchain_is_compared_by_shape() {
        let root = crate::root().unwrap();
        let committed = Committed::read(&root).unwrap();
        let same = |built: &Manifest, object: &[u8]| committed.same_as(built, object);
        let mut built = committed.manifest.clone();
        let mut bytes = committed.object.clone();
        assert!(same(&built, &bytes).is_ok());
        // Code that differs: an error from the same compiler, not from another.
        let code = bytes.len() / 2;
        bytes.extend([0; 8]);
        assert!(same(&built, &bytes).is_err());
        built.compiler = "rustc 9.9.9".to_owned();
        assert!(same(&built, &bytes).is_ok());
        assert!(same(&built, &bytes[..code]).is_err());
    }
}

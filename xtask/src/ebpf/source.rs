//! Which sources an object comes from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// Everything of the repository that goes into the object.
const SOURCES: [&str; 5] = [
    "ebpf/abi/Cargo.toml",
    "ebpf/abi/src",
    "ebpf/probes/Cargo.toml",
    "ebpf/probes/Cargo.lock",
    "ebpf/probes/src",
];

/// SHA-256 (hex) over names and contents, in the order of the names.
///
/// # Errors
/// A source can't be read.
pub fn hash(root: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file
            .strip_prefix(root)?
            .to_str()
            .context("a source name is not UTF-8")?;
        hasher.update(format!("{name}\0{}\0", bytes.len()));
        hasher.update(bytes);
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 (hex) of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("headroom-hash-{name}-{}", std::process::id()));
        for file in [
            "ebpf/abi/Cargo.toml",
            "ebpf/abi/src/lib.rs",
            "ebpf/probes/Cargo.toml",
        ]
        .into_iter()
        .chain(["ebpf/probes/Cargo.lock", "ebpf/probes/src/main.rs"])
        {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "text").unwrap();
        }
        root
    }

    #[test]
    fn the_place_does_not_matter_and_every_byte_does() {
        let (a, b) = (tree("a"), tree("b"));
        let first = hash(&a).unwrap();
        assert_eq!(first, hash(&b).unwrap());
        assert_eq!(first.len(), 64);
        fs::write(b.join("ebpf/abi/src/lib.rs"), "texT").unwrap();
        assert_ne!(first, hash(&b).unwrap());
        fs::write(b.join("ebpf/abi/src/lib.rs"), "text").unwrap();
        assert_eq!(first, hash(&b).unwrap());
        fs::rename(b.join("ebpf/abi/src/lib.rs"), b.join("ebpf/abi/src/lab.rs")).unwrap();
        assert_ne!(first, hash(&b).unwrap());
        fs::remove_dir_all(a).unwrap();
        fs::remove_dir_all(b).unwrap();
    }
}

//! A cpio archive in the one format the kernel unpacks ("newc", described in
//! Documentation/driver-api/early-userspace/buffer-format.rst). Written here,
//! it can hold device nodes without being root.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::LabError;

const DIRECTORY: Kind = Kind::plain(0o040_755);
const FILE: Kind = Kind::plain(0o100_644);
const PROGRAM: Kind = Kind::plain(0o100_755);
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Magic and 13 fields of 8 digits.
const HEADER: usize = 6 + 13 * 8;

#[derive(Clone, Copy)]
struct Kind {
    mode: u32,
    device: (u32, u32),
}

impl Kind {
    const fn plain(mode: u32) -> Self {
        Self {
            mode,
            device: (0, 0),
        }
    }
}

/// An archive that is being written; parent directories are made as needed.
pub(super) struct Archive<W> {
    out: W,
    path: PathBuf,
    directories: BTreeSet<String>,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Writes to `out`; `path` names it in errors.
    pub(super) fn new(out: W, path: &Path) -> Self {
        Self {
            out,
            path: path.to_owned(),
            directories: BTreeSet::new(),
            entries: 0,
        }
    }

    /// An empty directory, by its absolute path as all others.
    pub(super) fn directory(&mut self, path: &str) -> Result<(), LabError> {
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.parent(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    /// A copy of a file of this machine, executable.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<(), LabError> {
        let bytes = fs::read(from).map_err(|e| LabError::io("read", from, e))?;
        self.parent(path)?;
        self.entry(path, PROGRAM, &bytes)
    }

    /// A file of these bytes.
    pub(super) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), LabError> {
        self.parent(path)?;
        self.entry(path, FILE, bytes)
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<(), LabError> {
        self.parent(path)?;
        let kind = Kind {
            mode: CHARACTER_DEVICE,
            device: (major, minor),
        };
        self.entry(path, kind, &[])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<(), LabError> {
        self.entry("/TRAILER!!!", Kind::plain(0), &[])?;
        let flushed = self.out.flush();
        flushed.map_err(|e| LabError::io("write the initramfs", &self.path, e))
    }

    fn parent(&mut self, path: &str) -> Result<(), LabError> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, kind: Kind, bytes: &[u8]) -> Result<(), LabError> {
        self.entries += 1;
        let written = write(&mut self.out, self.entries, path, kind, bytes);
        written.map_err(|e| LabError::io("write the initramfs", &self.path, e))
    }
}

fn write(
    out: &mut impl Write,
    inode: u32,
    path: &str,
    Kind { mode, device }: Kind,
    bytes: &[u8],
) -> io::Result<()> {
    let name = path.trim_start_matches('/');
    let size = |n: usize| u32::try_from(n).map_err(|_| io::ErrorKind::FileTooLarge);
    let (length, name_length) = (size(bytes.len())?, size(name.len() + 1)?);
    let (major, minor) = device;
    // Inode, mode, uid, gid, links, time, size, device it lies on, device it
    // stands for, length of the name, checksum (unused).
    let fields = [
        inode,
        mode,
        0,
        0,
        1,
        0,
        length,
        0,
        0,
        major,
        minor,
        name_length,
        0,
    ];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(b"\0")?;
    pad(out, HEADER + name.len() + 1)?;
    out.write_all(bytes)?;
    pad(out, bytes.len())
}

fn pad(out: &mut impl Write, length: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..length.wrapping_neg() % 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_parents_come_once_and_first() {
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out, Path::new("test"));
        archive.bytes("/a/b/c", b"12345").unwrap();
        archive.bytes("/a/b/d", b"").unwrap();
        archive.device("/a/null", 1, 3).unwrap();
        archive.finish().unwrap();
        assert_eq!(out.len() % 4, 0);
        let (mut at, mut seen) = (0, Vec::new());
        while at < out.len() {
            let field = |n: usize| {
                let text = std::str::from_utf8(&out[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&out[at..at + 6], b"070701");
            let name = &out[at + HEADER..at + HEADER + field(11) - 1];
            seen.push((String::from_utf8(name.to_vec()).unwrap(), field(6)));
            let data = (at + HEADER + field(11)).next_multiple_of(4);
            at = (data + field(6)).next_multiple_of(4);
        }
        let expected = [
            ("a", 0),
            ("a/b", 0),
            ("a/b/c", 5),
            ("a/b/d", 0),
            ("a/null", 0),
        ];
        let expected = expected.into_iter().chain([("TRAILER!!!", 0)]);
        assert!(
            seen.iter().map(|(n, s)| (n.as_str(), *s)).eq(expected),
            "{seen:?}"
        );
    }
}

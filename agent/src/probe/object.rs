//! The BPF object that lies in the repository, and the check of its header.

use headroom_abi::{ABI_VERSION, HEADER_SECTION, MAGIC};
use object::{Object, ObjectSection};

use crate::probe::error::HeaderError;

// ELF structures are read in place and need eight-byte alignment.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

#[cfg(not(feature = "bpf-log"))]
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../ebpf/object/headroom.bpf.o"));

// Made by `cargo xtask ebpf --log`.
#[cfg(feature = "bpf-log")]
static OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../../target/ebpf/headroom-log.bpf.o"));

/// What an object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Layout version, equal to this agent's.
    pub version: u32,
    /// Whether the probes' own diagnostics are compiled in.
    pub log: bool,
    /// SHA-256 (hex) of its sources.
    pub source: String,
}

/// The object built into this binary.
#[must_use]
pub fn embedded() -> &'static [u8] {
    &OBJECT.0
}

/// Reads an object's header; run before any part of it reaches the kernel.
///
/// # Errors
/// It is no object of ours or one of another abi version.
pub fn check(bytes: &[u8]) -> Result<Header, HeaderError> {
    let file = object::File::parse(bytes).map_err(|e| HeaderError::NotElf(e.to_string()))?;
    let section = file
        .section_by_name(HEADER_SECTION)
        .ok_or(HeaderError::Missing)?;
    let data = section
        .data()
        .map_err(|e| HeaderError::NotElf(e.to_string()))?;
    let (magic, rest) = data.split_first_chunk::<8>().ok_or(HeaderError::Magic)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(HeaderError::Magic)?;
    let (log, source) = rest.split_first_chunk::<4>().ok_or(HeaderError::Magic)?;
    if *magic != MAGIC {
        return Err(HeaderError::Magic);
    }
    let found = u32::from_le_bytes(*version);
    if found != ABI_VERSION {
        return Err(HeaderError::Version {
            found,
            expected: ABI_VERSION,
        });
    }
    let source = source.get(..64).ok_or(HeaderError::Magic)?;
    Ok(Header {
        version: found,
        log: u32::from_le_bytes(*log) != 0,
        source: String::from_utf8_lossy(source).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the header lies in the embedded object.
    fn header_offset() -> usize {
        let file = object::File::parse(embedded()).unwrap();
        let range = file
            .section_by_name(HEADER_SECTION)
            .unwrap()
            .file_range()
            .unwrap();
        usize::try_from(range.0).unwrap()
    }

    #[test]
    fn the_embedded_object_is_ours() {
        let header = check(embedded()).unwrap();
        assert_eq!(header.version, ABI_VERSION);
        assert_ne!(
            header.source,
            "0".repeat(64),
            "not built by `cargo xtask ebpf`"
        );
    }

    #[cfg(not(feature = "bpf-log"))]
    #[test]
    fn the_shipped_object_carries_no_diagnostics() {
        assert!(!check(embedded()).unwrap().log);
        let file = object::File::parse(embedded()).unwrap();
        for symbol in file.symbols() {
            let name = object::ObjectSymbol::name(&symbol).unwrap();
            assert!(!name.contains("AYA_LOG"), "{name}");
        }
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = embedded().to_vec();
        let at = header_offset() + 8;
        bytes[at] = bytes[at].wrapping_add(1);
        let expected = HeaderError::Version {
            found: ABI_VERSION + 1,
            expected: ABI_VERSION,
        };
        assert_eq!(check(&bytes), Err(expected));
    }

    #[test]
    fn foreign_objects_are_refused() {
        let mut bytes = embedded().to_vec();
        bytes[header_offset()] ^= 0xff;
        assert_eq!(check(&bytes), Err(HeaderError::Magic));
        assert!(matches!(check(b"garbage"), Err(HeaderError::NotElf(_))));
        assert!(matches!(check(&[]), Err(HeaderError::NotElf(_))));
        let elf = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(check(&elf), Err(HeaderError::Missing));
    }
}

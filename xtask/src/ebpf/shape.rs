//! What two objects of the same sources share whatever compiled them, and the
//! object without its debug sections.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use object::build::elf::{Builder, SectionData};
use object::{Object, ObjectSection, ObjectSymbol};

/// Programs, maps and header of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sections that hold a program.
    pub programs: BTreeSet<String>,
    /// Definition of each map.
    pub maps: BTreeMap<String, Vec<u8>>,
    /// SHA-256 of the sources, from the header.
    pub source: String,
}

impl Shape {
    /// Reads an object.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let file = object::File::parse(bytes).context("the object is no ELF file")?;
        let programs = file
            .sections()
            .filter_map(|section| section.name().ok().map(str::to_owned))
            .filter(|name| name.starts_with("tp_btf/") || name.starts_with("raw_tp/"))
            .collect();
        let section = file
            .section_by_name("maps")
            .context("the object has no maps")?;
        let definitions = section.data()?;
        let mut maps = BTreeMap::new();
        for symbol in file
            .symbols()
            .filter(|s| s.section_index() == Some(section.index()))
        {
            let (from, size) = (
                usize::try_from(symbol.address())?,
                usize::try_from(symbol.size())?,
            );
            let bytes = definitions
                .get(from..from + size)
                .context("a map beyond its section")?;
            maps.insert(symbol.name()?.to_owned(), bytes.to_vec());
        }
        let header = file
            .section_by_name("headroom.abi")
            .context("the object has no header")?;
        // magic, version, log, then the hash in hex.
        let source = header
            .data()?
            .get(16..80)
            .context("the header is too short")?;
        Ok(Self {
            programs,
            maps,
            source: std::str::from_utf8(source)?.to_owned(),
        })
    }
}

/// The object without DWARF: a third of its size, and nothing reads it after
/// the linker has made BTF of it.
///
/// # Errors
/// It is no ELF object.
pub fn stripped(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(bytes).context("the linker's output is no ELF object")?;
    for section in &mut builder.sections {
        let name = section.name.to_vec();
        if name.starts_with(b".debug") || name.starts_with(b".rel.debug") {
            section.delete = true;
        }
    }
    // LLVM keeps both kinds of names in one table; the writer wants two.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut out = Vec::new();
    builder
        .write(&mut out)
        .context("writing the stripped object")?;
    Ok(out)
}

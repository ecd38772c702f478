//! Bytes shared by the BPF programs and the agent.
//!
//! Everything here is `#[repr(C)]`, eight-byte aligned and free of implicit
//! padding, so that the kernel side and the user side agree on every offset.
//! A change of any layout, constant or meaning raises [`ABI_VERSION`]; the
//! object carries it and the agent refuses one of another version.
#![no_std]

pub mod blame;
pub mod block;
pub mod hist;
pub mod memory;
pub mod net;
pub mod sched;
pub mod snapshot;
pub mod tag;
pub mod virtio;

/// Version of everything in this crate.
pub const ABI_VERSION: u32 = 3;

/// ELF section of the BPF object that holds its [`ObjectHeader`].
pub const HEADER_SECTION: &str = "headroom.abi";

/// First bytes of an [`ObjectHeader`].
pub const MAGIC: [u8; 8] = *b"headroom";

/// What a BPF object says of itself, in section [`HEADER_SECTION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ObjectHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`ABI_VERSION`] the object was built with, little endian.
    pub version: u32,
    /// 1 when the probes' own diagnostics (aya-log) are compiled in.
    pub log: u32,
    /// SHA-256 (hex) of the sources the object was built from.
    pub source: [u8; 64],
}

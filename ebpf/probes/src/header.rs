//! What the object says of itself, and its licence.

use headroom_abi::{ABI_VERSION, MAGIC, ObjectHeader};

/// Read by the agent before it loads anything.
#[unsafe(link_section = "headroom.abi")]
#[unsafe(no_mangle)]
#[used]
static HEADROOM_ABI: ObjectHeader = ObjectHeader {
    magic: MAGIC,
    version: ABI_VERSION,
    log: cfg!(feature = "log") as u32,
    source: source(),
};

/// The scheduler tracepoints and `bpf_probe_read_kernel` are for GPL-compatible
/// programs only; Apache-2.0 sources may be offered under both.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// SHA-256 of the sources, set by `cargo xtask ebpf`; a hand-made object
/// carries zeros.
const fn source() -> [u8; 64] {
    let Some(hex) = option_env!("HEADROOM_BPF_SOURCE") else {
        return [b'0'; 64];
    };
    let (hex, mut out, mut i) = (hex.as_bytes(), [0; 64], 0);
    assert!(hex.len() == 64, "HEADROOM_BPF_SOURCE is not a SHA-256");
    while i < 64 {
        out[i] = hex[i];
        i += 1;
    }
    out
}

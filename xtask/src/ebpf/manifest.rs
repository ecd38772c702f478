//! What built the committed object.

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::ebpf::source::sha256;
use crate::ebpf::toolchain::Toolchain;

/// `ebpf/object/manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// rustc with its commit and LLVM.
    pub compiler: String,
    /// bpf-linker with its LLVM.
    pub linker: String,
    /// Of the sources, as in the object's own header.
    pub source_sha256: String,
    /// Of the object.
    pub object_sha256: String,
}

impl Manifest {
    /// Of an object just built.
    pub fn of(toolchain: &Toolchain, source: &str, object: &[u8]) -> Self {
        Self {
            compiler: toolchain.compiler.clone(),
            linker: toolchain.linker.clone(),
            source_sha256: source.to_owned(),
            object_sha256: sha256(object),
        }
    }

    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub fn from_json(bytes: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(bytes).context("manifest.json is no manifest of this version")
    }
}

//! What a test needs of the machine: absent, it skips and says why, or fails
//! when `HEADROOM_REQUIRE` names it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// A capability of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root with BPF and kernel BTF.
    Bpf,
    /// `/dev/kvm` and QEMU.
    Kvm,
    /// The Python environment of `./test`.
    Python,
    /// A browser.
    Browser,
    /// Prometheus and promtool.
    Prometheus,
}

/// Whether all of it is there; prints the skip where not.
///
/// # Panics
/// Something is missing that `HEADROOM_REQUIRE` names.
#[must_use]
pub fn have(test: &str, needs: &[Need]) -> bool {
    for need in needs {
        if let Some(reason) = missing(*need) {
            let name = format!("{need:?}").to_lowercase();
            lacks(&name, format_args!("{test}: {reason}"));
            return false;
        }
    }
    true
}

/// Prints the skip of a test that found out itself what it lacks: a loop
/// device, say, or programs that the kernel refused.
///
/// # Panics
/// `HEADROOM_REQUIRE` names the capability.
pub fn lacks(capability: &str, reason: impl std::fmt::Display) {
    let required = std::env::var("HEADROOM_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r.trim() == capability),
        "{capability} is required: {reason}"
    );
    // Not eprintln!: the test runner would keep it to itself.
    let _ = writeln!(std::io::stderr(), "skip: {capability}: {reason}");
}

fn missing(need: Need) -> Option<String> {
    let absent = |path: &str| (!Path::new(path).exists()).then(|| format!("{path} is missing"));
    let closed = |path: &str| {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        opened.err().map(|error| format!("{path}: {error}"))
    };
    match need {
        Need::Bpf if !rustix::process::geteuid().is_root() => Some("not root".into()),
        Need::Bpf => absent("/sys/kernel/btf/vmlinux"),
        Need::Kvm => closed("/dev/kvm").or_else(|| absent("/usr/bin/qemu-system-x86_64")),
        Need::Python => absent(&crate::python().display().to_string()),
        Need::Browser => absent("/usr/bin/chromium"),
        Need::Prometheus => absent("/usr/bin/prometheus").or_else(|| absent("/usr/bin/promtool")),
    }
}

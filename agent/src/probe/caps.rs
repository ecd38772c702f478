//! Which capabilities for BPF this process lacks.

use caps::{CapSet, Capability};

/// Names of the missing capabilities, separated by spaces; `None` when all are
/// there. `CAP_SYS_ADMIN` stands for both.
pub fn missing() -> Option<String> {
    let has = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) {
        return None;
    }
    let missing: Vec<_> = [Capability::CAP_BPF, Capability::CAP_PERFMON]
        .into_iter()
        .filter(|cap| !has(*cap))
        .map(|cap| cap.to_string())
        .collect();
    (!missing.is_empty()).then(|| missing.join(" "))
}

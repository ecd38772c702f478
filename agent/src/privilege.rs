//! Giving up privileges.
//!
//! Capabilities belong to threads: a thread started later inherits what its
//! creator has then, one started before keeps its own. So [`drop_all`] is
//! called while the process has one thread, before any runtime is built, and
//! [`privileged_threads`] says whether that held.
//!
//! What goes on without capabilities: registering threads and reading the
//! maps (their descriptors are open), and as uid 0 all of `/proc` that
//! discovery needs. Only `/proc/P/exe` of other users' processes closes;
//! discovery then goes by the command line.

use caps::{CapSet, Capability};

/// Privileges cannot be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// `no_new_privs` was refused.
    #[error("setting no_new_privs")]
    NoNewPrivileges(#[source] std::io::Error),
    /// A capability set cannot be read or cleared.
    #[error("clearing the {set} capabilities: {problem}")]
    Clear {
        /// Which set.
        set: &'static str,
        /// Why, in the words of the kernel.
        problem: String,
    },
    /// The threads' capabilities cannot be read.
    #[error("reading /proc/self/task")]
    Threads(#[source] std::io::Error),
}

/// Clears all five capability sets of the calling thread and makes sure that
/// no program executed later gets any.
///
/// # Errors
/// The kernel refuses, which it does for no reason known.
pub fn drop_all() -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|e| PrivilegeError::NoNewPrivileges(e.into()))?;
    // The bounding set can only be cleared with this one; without it there is
    // nothing to gain from the set either, as no_new_privs is set.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        clear(CapSet::Bounding, "bounding")?;
    }
    clear(CapSet::Ambient, "ambient")?;
    clear(CapSet::Inheritable, "inheritable")?;
    clear(CapSet::Effective, "effective")?;
    clear(CapSet::Permitted, "permitted")
}

/// Threads of this process with any effective or permitted capability.
///
/// # Errors
/// `/proc/self/task` cannot be read.
pub fn privileged_threads() -> Result<usize, PrivilegeError> {
    let mut privileged = 0;
    for entry in std::fs::read_dir("/proc/self/task").map_err(PrivilegeError::Threads)? {
        let path = entry
            .map_err(PrivilegeError::Threads)?
            .path()
            .join("status");
        // A thread may end between the two reads.
        let status = std::fs::read_to_string(path).unwrap_or_default();
        privileged += usize::from(has_capabilities(&status));
    }
    Ok(privileged)
}

fn clear(set: CapSet, name: &'static str) -> Result<(), PrivilegeError> {
    caps::clear(None, set).map_err(|e| PrivilegeError::Clear {
        set: name,
        problem: e.to_string(),
    })
}

fn has_capabilities(status: &str) -> bool {
    let set = |name| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .is_some_and(|v| v.trim().bytes().any(|b| b != b'0'))
    };
    set("CapEff:") || set("CapPrm:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        assert!(has_capabilities(
            "CapInh:\t0\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n"
        ));
        assert!(has_capabilities(
            "CapPrm:\t0000000000000400\nCapEff:\t0000000000000000\n"
        ));
        assert!(!has_capabilities(
            "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t01\n"
        ));
    }

    #[test]
    fn a_thread_gives_up_everything_and_its_children_have_nothing() {
        // In a thread of its own: the other tests keep what they have.
        let status = std::thread::spawn(|| {
            drop_all().unwrap();
            let read = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
            (read(), std::thread::spawn(read).join().unwrap())
        });
        let (own, child) = status.join().unwrap();
        for status in [own, child] {
            assert!(!has_capabilities(&status), "{status}");
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        }
    }
}

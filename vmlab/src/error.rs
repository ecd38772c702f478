//! Why the lab can't do something.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why a run did not happen or has no result.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program of this machine is missing.
    #[error("{program} is missing; apt-get install {package}")]
    Missing {
        /// Its name.
        program: String,
        /// Debian's package that has it.
        package: String,
    },
    /// A file or directory can't be used.
    #[error("{action} ({path})", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A command failed.
    #[error("{command}: {status}: {said}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
    /// No suite of the mirror has such a kernel.
    #[error("no linux-image-{series}*-cloud-amd64 in {suites}")]
    NoKernel {
        /// `6.1`, `6.12`.
        series: &'static str,
        /// Where it was looked for.
        suites: String,
    },
    /// A kernel can't be fetched.
    #[error("fetch a kernel")]
    Fetch(#[source] Box<LabError>),
    /// The kernel has neither the module nor its code built in.
    #[error("kernel {release} has no module {module}")]
    NoModule {
        /// Release of the kernel.
        release: String,
        /// The module's name.
        module: String,
    },
    /// The machine did not end in time.
    #[error("the machine still ran after {seconds} s; its console ends:\n{console}")]
    TimedOut {
        /// Limit.
        seconds: u64,
        /// Last lines of its console.
        console: String,
    },
    /// The machine ended without having finished.
    #[error("the machine ended early; its console ends:\n{console}")]
    Died {
        /// Last lines of its console.
        console: String,
    },
    /// The scenario could not be carried out.
    #[error("inside the machine: {error}; the agent said:\n{agent}")]
    Inside {
        /// The reason.
        error: String,
        /// What the agent wrote to standard error.
        agent: String,
    },
    /// A line that the machine never writes.
    #[error("unreadable line from the machine: {line:?}")]
    Wire {
        /// The line.
        line: String,
        /// Why it is unreadable.
        source: serde_json::Error,
    },
    /// A truth that the scenario does not have.
    #[error("the scenario tells no truth named {name:?} that is one")]
    NoTruth {
        /// Its name.
        name: String,
    },
}

impl LabError {
    /// Whether it is for want of something that this machine or its network
    /// does not have, rather than a fault of the lab.
    #[must_use]
    pub const fn is_want(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Fetch(_))
    }

    /// Whether the emulator failed, not what runs in it: one of its CPUs took a
    /// breakpoint (int3) that another had already removed. Kernels write one
    /// wherever they change their own code, which they do as tracepoints and
    /// virtual machines come and go. Seen with QEMU 7.2, once in 15 runs on a
    /// busy host, with and without the agent.
    pub(crate) fn is_stale_breakpoint(&self) -> bool {
        matches!(self, Self::Died { console } if console.contains("int3: 0000 [#"))
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

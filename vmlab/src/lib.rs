//! The VM lab: runs the agent in Debian's kernels, each inside a virtual
//! machine that is itself a KVM host with guests, NUMA nodes, disks and
//! cgroup v2, and brings back the agent's rows with an independent truth
//! beside them.
//!
//! The machine is QEMU with software emulation (TCG), so the lab needs neither
//! KVM nor root, and its `-cpu max` has SVM, so that the kernel inside can run
//! guests of its own. TCG is slow (10 to 20 ms more for a nested disk request):
//! the lab is for events, shares and counts, not for microseconds.
//!
//! A run: [`Lab::prepare`] builds the static binaries and fetches the kernel;
//! [`Lab::run`] packs both with the programs the scenario needs into an
//! initramfs, boots it, and reads what the machine wrote to its second serial
//! port. The machine's first process is `headroom-vmguest` (`guest/`).
#![forbid(unsafe_code)]

mod artifact;
mod cache;
mod error;
mod initrd;
mod kernel;
mod machine;
pub mod message;
mod report;
mod scenario;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use artifact::Binaries;
use cache::Cache;
pub use error::LabError;
pub use kernel::{Kernel, Series};
use machine::Machine;
pub use report::{Report, Run};
pub use scenario::Scenario;

/// Machines that are started for one run where the emulator fails.
const ATTEMPTS: u32 = 3;

/// All that runs of one kernel share.
#[derive(Debug)]
pub struct Lab {
    binaries: Binaries,
    kernel: Kernel,
}

impl Lab {
    /// Builds the static binaries and makes sure that the kernel is there; the
    /// first time that takes minutes and the network, later a second and none.
    ///
    /// # Errors
    /// A program is missing, a build fails, or no such kernel can be fetched.
    pub fn prepare(series: Series) -> Result<Self, LabError> {
        for (program, package) in [
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("busybox", "busybox-static"),
            ("xz", "xz-utils"),
        ] {
            initrd::program(program, package)?;
        }
        Ok(Self {
            binaries: Binaries::build()?,
            kernel: Kernel::obtain(series, &Cache::open()?)?,
        })
    }

    /// The kernel's release, such as `6.1.0-56-cloud-amd64`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.kernel.release
    }

    /// Boots the kernel, runs the scenario and gives what it brought back.
    /// Runs of one process wait for each other: each needs two CPUs.
    ///
    /// # Errors
    /// The machine can't be built or started, does not end in time, or says
    /// that the scenario could not be carried out.
    pub fn run(&self, scenario: Scenario) -> Result<Report, LabError> {
        static CPUS: Mutex<()> = Mutex::new(());
        let _alone = CPUS.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new()
            .prefix("headroom-vmlab.")
            .tempdir()
            .map_err(|e| LabError::io("make a directory for the machine", Path::new("/tmp"), e))?;
        let initrd = dir.path().join("initrd");
        initrd::build(&initrd, &self.kernel, &self.binaries, scenario)?;
        let machine = Machine {
            kernel: &self.kernel,
            initrd: &initrd,
            scenario,
            dir: dir.path(),
        };
        let mut attempt = 1;
        loop {
            match machine.run().and_then(|output| Report::parse(&output)) {
                Err(error) if error.is_stale_breakpoint() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }
}

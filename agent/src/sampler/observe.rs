//! What else is measured of a host and its VMs, each part on its own.

use headroom_core::batch::Chunk;

use super::rows::Frame;
use crate::discover::Vm;

/// A VM of the present window.
#[derive(Clone, Copy, Debug)]
pub struct SceneVm<'a> {
    /// As the last scan saw it.
    pub vm: &'a Vm,
    /// Its number in the probes' maps, 1 and up; the number is another VM's
    /// only after this one's last window. `None` when all were taken.
    pub index: Option<u16>,
    /// False in the last window of a VM that is gone.
    pub live: bool,
}

/// All VMs that lived for some time in the present window.
#[derive(Clone, Debug, Default)]
pub struct Scene<'a> {
    /// In no order.
    pub vms: Vec<SceneVm<'a>>,
}

impl<'a> Scene<'a> {
    /// VM of a number in the probes' maps.
    #[must_use]
    pub fn by_index(&self, index: u16) -> Option<&SceneVm<'a>> {
        self.vms.iter().find(|vm| vm.index == Some(index))
    }
}

/// How far one family of measurements works on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Its name: `sched`, `block`, `memory`, …
    pub family: &'static str,
    /// Where its figures come from (`tp_btf`, `cgroup`, …); `None` when it is
    /// unavailable.
    pub source: Option<String>,
    /// Why it, or which part of it, is unavailable, and the remedy.
    pub reason: Option<String>,
}

/// Something that a family saw happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserverEvent {
    /// When, µs since 1970 UTC.
    pub ts_us: i64,
    /// What: `memory_swap`, …
    pub kind: &'static str,
    /// To what, as `vm/ID` or `host/NAME`.
    pub subject: String,
    /// One sentence.
    pub detail: String,
}

/// One family of measurements. It is made while the process has its
/// privileges and goes on without: what it needs later it opens then.
///
/// Contract: figures are cumulative inside and subtracted per window; what
/// cannot be told is `None` in the rows, never 0; nothing in here fails as a
/// whole or panics on what the kernel or a VMM says.
pub trait Observer: Send {
    /// What works and why not; may change while the agent runs.
    fn status(&self) -> Vec<FamilyStatus>;

    /// Once a second, after the scan: takes readings.
    fn tick(&mut self, _scene: &Scene<'_>) {}

    /// Ends a window: its rows since the last one. VMs that are gone are in
    /// the scene for the last time.
    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk>;

    /// What happened since the last call, for the table of events; called
    /// after each tick and each window.
    fn take_events(&mut self) -> Vec<ObserverEvent> {
        Vec::new()
    }
}

//! The guest's memory from the host's side: knobs to turn, figures to read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;

use super::spec::{DISK_SECTORS, Layout, OWN_MIB, Spec};
use headroom_payload::map;

/// Periods of the payload in a second.
const PERIODS: u32 = 100;
/// The payload's arithmetic holds half a second between two requests.
const SLOWEST_US: u32 = 500_000;

/// A guest's memory, as far as it is the payload's.
#[derive(Debug)]
pub struct Memory {
    file: File,
    vcpus: u32,
}

/// Things that took time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their time together, ns.
    pub sum_ns: u64,
    /// The longest since the guest began, ns.
    pub max_ns: u64,
}

impl Tally {
    /// Mean time, ns; `None` when there was nothing.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ns of a lab run: below 2^53")]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }

    /// What was added since an earlier reading; `max_ns` stays that of all.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            max_ns: self.max_ns,
        }
    }
}

/// What the guest saw of its disks since it began, all queues together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests, from just before the kick until the guest saw the end.
    pub done: Tally,
    /// Requests that failed.
    pub errors: u32,
    /// Interrupts taken.
    pub interrupts: u32,
    /// Kicks given; a polling device wants none.
    pub kicks: u32,
    /// Writes submitted.
    pub writes: u32,
}

impl Memory {
    /// Makes the memory's file and sets the knobs.
    pub(super) fn create(path: &Path, spec: &Spec) -> anyhow::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .with_context(|| format!("create {}", path.display()))?;
        file.set_len(u64::from(OWN_MIB) << 20)?;
        let memory = Self {
            file,
            vcpus: spec.vcpus,
        };
        memory.set_load(spec.load)?;
        memory.put(map::VCPUS, spec.vcpus)?;
        memory.put(map::SPAN, DISK_SECTORS - 1)?;
        if let Some(disk) = &spec.disk {
            let each = disk.layout == Layout::QueuePerVcpu;
            memory.write(map::QUEUE_PER_VCPU, &[u8::from(each)])?;
            memory.write(map::WRITES, &[disk.writes.min(100)])?;
            memory.put(map::SECTORS, disk.sectors.clamp(1, 8))?;
            memory.put(map::DEPTH, disk.depth.clamp(1, map::SLOTS))?;
            memory.set_iops(disk.iops)?;
            memory.use_disk(true)?;
        }
        Ok(memory)
    }

    /// Sets the busy share of each vCPU, percent, at once.
    ///
    /// # Errors
    /// The guest's memory file can't be written.
    pub fn set_load(&self, percent: u8) -> anyhow::Result<()> {
        self.write(map::LOAD, &[percent.min(100)])
    }

    /// Lets the guest use its disk, or not.
    ///
    /// # Errors
    /// The guest's memory file can't be written.
    pub fn use_disk(&self, on: bool) -> anyhow::Result<()> {
        self.write(map::DISK_ON, &[u8::from(on)])
    }

    /// Sets the requests a second of each queue, 2 at least; 0 is as many as
    /// the depth allows.
    ///
    /// # Errors
    /// The guest's memory file can't be written.
    pub fn set_iops(&self, iops: u32) -> anyhow::Result<()> {
        let interval = 1_000_000u32.checked_div(iops).unwrap_or(0);
        // More than a million a second is as many as the depth allows.
        self.put(map::INTERVAL_US, interval.min(SLOWEST_US))
    }

    /// Lets the guest dirty that many pages a second, walking over the first
    /// `mib` MiB of its anonymous memory; 0 ends it.
    ///
    /// # Errors
    /// The guest's memory file can't be written.
    pub fn set_touch(&self, mib: u32, pages_per_s: u32) -> anyhow::Result<()> {
        self.put(map::TOUCH_PAGES, pages_per_s.div_ceil(PERIODS))?;
        self.put(map::TOUCH_MIB, mib)
    }

    /// Pages dirtied and how long each took: one that must come back from swap
    /// takes long.
    ///
    /// # Errors
    /// The guest's memory file can't be read.
    pub fn touched(&self) -> anyhow::Result<Tally> {
        let ticks = self.ticks_per_ms()?;
        self.tally(map::TOUCHED, ticks)
    }

    /// What the guest saw of its disks.
    ///
    /// # Errors
    /// The guest's memory file can't be read.
    pub fn figures(&self) -> anyhow::Result<Figures> {
        let ticks = self.ticks_per_ms()?;
        let mut all = Figures::default();
        for vcpu in 0..u64::from(self.vcpus) {
            let state = map::STATE + vcpu * map::STATE_STEP;
            let done = self.tally(state + map::DONE, ticks)?;
            all.done.count += done.count;
            all.done.sum_ns += done.sum_ns;
            all.done.max_ns = all.done.max_ns.max(done.max_ns);
            all.errors += self.get(state + map::ERRORS)?;
            all.interrupts += self.get(state + map::INTERRUPTS)?;
            all.kicks += self.get(state + map::KICKS)?;
            all.writes += self.get(state + map::WRITTEN)?;
        }
        Ok(all)
    }

    /// Steal that KVM told this vCPU since it began, ns; `None` where it tells
    /// none. It is brought up to date whenever the vCPU is scheduled in.
    ///
    /// # Errors
    /// The guest's memory file can't be read.
    pub fn steal_ns(&self, vcpu: u32) -> anyhow::Result<Option<u64>> {
        if self.get(map::HAS_STEAL)? == 0 {
            return Ok(None);
        }
        let at = map::STEAL + u64::from(vcpu) * map::STEAL_STEP;
        Ok(Some(u64::from_le_bytes(self.settled(at)?)))
    }

    /// Turns of a vCPU's busy loop, wrapping.
    ///
    /// # Errors
    /// The guest's memory file can't be read.
    pub fn loops(&self, vcpu: u32) -> anyhow::Result<u32> {
        self.get(map::LOOPS + 8 * u64::from(vcpu))
    }

    pub(super) fn up(&self) -> anyhow::Result<bool> {
        Ok(self.get(map::UP)? == 1)
    }

    pub(super) fn disks(&self) -> anyhow::Result<u32> {
        self.get(map::DISKS)
    }

    fn ticks_per_ms(&self) -> anyhow::Result<u64> {
        Ok(u64::from(self.get(map::TICKS_PER_MS)?.max(1)))
    }

    fn tally(&self, at: u64, ticks_per_ms: u64) -> anyhow::Result<Tally> {
        let bytes: [u8; 24] = self.settled(at)?;
        let word = |n: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * n..8 * n + 8]);
            u64::from_le_bytes(word)
        };
        let ns = |ticks: u64| {
            let ns = u128::from(ticks) * 1_000_000 / u128::from(ticks_per_ms);
            u64::try_from(ns).unwrap_or(u64::MAX)
        };
        Ok(Tally {
            count: word(0),
            sum_ns: ns(word(1)),
            max_ns: ns(word(2)),
        })
    }

    /// The guest adds in two halves and to one figure after the other: what
    /// reads the same twice was not caught in between.
    fn settled<const N: usize>(&self, at: u64) -> anyhow::Result<[u8; N]> {
        let mut last = self.read(at)?;
        for _ in 0..1000 {
            let next = self.read(at)?;
            if next == last {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    fn get(&self, at: u64) -> anyhow::Result<u32> {
        Ok(u32::from_le_bytes(self.read(at)?))
    }

    fn put(&self, at: u64, value: u32) -> anyhow::Result<()> {
        self.write(at, &value.to_le_bytes())
    }

    fn read<const N: usize>(&self, at: u64) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file
            .read_exact_at(&mut bytes, at)
            .context("read the guest's memory")?;
        Ok(bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.file
            .write_all_at(bytes, at)
            .context("write the guest's memory")
    }
}

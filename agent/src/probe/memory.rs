//! Reader of the memory families: stalls by VM, and OOM kills.

use headroom_abi::memory::{KILLS_LEN, MemoryStats, OomKill};

use crate::probe::map::Mapped;

/// Reads what the programs of the families `reclaim` and `compaction` count; they
/// count as long as the [`super::Probes`] live that it comes from.
pub struct MemoryReader {
    pub(super) reclaim: Option<&'static str>,
    pub(super) compaction: Option<&'static str>,
    pub(super) stats: Mapped<MemoryStats>,
    pub(super) kills: Mapped<OomKill>,
}

impl MemoryReader {
    /// `tp_btf` or `raw_tp` where reclaim and OOM kills are measured.
    #[must_use]
    pub const fn reclaim(&self) -> Option<&'static str> {
        self.reclaim
    }

    /// The same of compaction.
    #[must_use]
    pub const fn compaction(&self) -> Option<&'static str> {
        self.compaction
    }

    /// What the VM of a number suffered; 0 is the host, all VMs included.
    /// `None` for a number beyond the map.
    #[must_use]
    pub fn stats(&self, index: u16) -> Option<MemoryStats> {
        let index = usize::from(index);
        (index < self.stats.len()).then(|| self.stats.copy(index))
    }

    /// OOM kills since `seen` of them, and how many there were in all. Those
    /// beyond the kernel side's bound are left out: the difference tells.
    #[must_use]
    pub fn kills_since(&self, seen: u64) -> (Vec<OomKill>, u64) {
        let all = self.stats.copy(0).kills;
        let oldest = seen.max(all.saturating_sub(u64::from(KILLS_LEN)));
        let kill = |n: u64| {
            let at = usize::try_from(n % u64::from(KILLS_LEN)).ok()?;
            Some(self.kills.copy(at))
        };
        ((oldest..all).filter_map(kill).collect(), all)
    }
}

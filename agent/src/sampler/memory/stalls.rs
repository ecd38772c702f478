//! Stalls by the probes, where they are attached.

use headroom_abi::memory::{Episode, MemoryStats, OomKill, Stalls};
use headroom_core::hist::Hist;

use crate::clock;
use crate::probe::MemoryReader;
use crate::sampler::rows::int;

/// The probes' reader, and the OOM kills that it has told already.
pub struct StallProbe {
    reader: Option<MemoryReader>,
    kills_seen: u64,
}

/// Stalls of one kind in a window; `None` without probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    /// Their sum, ns.
    pub ns: Option<i64>,
    /// Their lengths, as stored.
    pub hist: Option<Vec<u8>>,
}

impl StallProbe {
    pub fn new(reader: Option<MemoryReader>) -> Self {
        let kills_seen = reader.as_ref().map_or(0, |r| r.kills_since(u64::MAX).1);
        Self { reader, kills_seen }
    }

    /// What measures stalls; `None` without probes.
    pub fn source(&self) -> Option<&'static str> {
        let reader = self.reader.as_ref()?;
        reader.reclaim().or(reader.compaction())
    }

    /// Whether OOM kills are told one by one.
    pub fn tells_kills(&self) -> bool {
        self.reader.as_ref().is_some_and(|r| r.reclaim().is_some())
    }

    /// What the VM of a number, or as number 0 the host, suffered so far.
    pub fn stats(&self, index: Option<u16>) -> Option<MemoryStats> {
        self.reader.as_ref()?.stats(index?)
    }

    /// OOM kills since the last call, and how many more there were.
    pub fn kills(&mut self) -> (Vec<OomKill>, u64) {
        let Some(reader) = self.reader.as_ref().filter(|r| r.reclaim().is_some()) else {
            return (Vec::new(), 0);
        };
        let (kills, all) = reader.kills_since(self.kills_seen);
        let missed = all - self.kills_seen - kills.len() as u64;
        self.kills_seen = all;
        (kills, missed)
    }

    /// Reclaim stalls between two readings.
    pub fn reclaim(&self, base: Option<&MemoryStats>, end: Option<&MemoryStats>) -> Stalled {
        let source = self.reader.as_ref().and_then(MemoryReader::reclaim);
        Stalled::of(source, base.map(|s| &s.reclaim), end.map(|s| &s.reclaim))
    }

    /// Compaction stalls between two readings.
    pub fn compaction(&self, base: Option<&MemoryStats>, end: Option<&MemoryStats>) -> Stalled {
        let source = self.reader.as_ref().and_then(MemoryReader::compaction);
        let (base, end) = (base.map(|s| &s.compaction), end.map(|s| &s.compaction));
        Stalled::of(source, base, end)
    }
}

impl Stalled {
    fn of(source: Option<&str>, base: Option<&Stalls>, end: Option<&Stalls>) -> Self {
        let (Some(_), Some(base), Some(end)) = (source, base, end) else {
            return Self::default();
        };
        let hist = Hist::from_counts(end.hist).since(&Hist::from_counts(base.hist));
        Self {
            ns: Some(int(end.ns.saturating_sub(base.ns))),
            hist: Some(hist.encode()),
        }
    }
}

/// One moment on both clocks, and since when something is news.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Wall time, µs since 1970 UTC.
    pub wall_us: i64,
    /// `CLOCK_MONOTONIC`, ns.
    pub mono_ns: u64,
    /// The tick before the last one, `CLOCK_MONOTONIC` ns.
    pub news_since_ns: u64,
}

impl Moment {
    /// Now; what happened since `news_since_ns` is news.
    pub fn now(news_since_ns: u64) -> Self {
        Self {
            wall_us: clock::micros(clock::wall()),
            mono_ns: clock::monotonic_ns(),
            news_since_ns,
        }
    }

    /// Wall time of a monotonic one.
    pub fn wall_of(&self, at_ns: u64) -> i64 {
        self.wall_us - int(self.mono_ns.saturating_sub(at_ns) / 1000)
    }

    /// Wall time at which an episode began, if it began lately: files may show
    /// it a tick later than the probes. An older one is not what files show.
    pub fn beginning(&self, episode: Option<&Episode>) -> Option<i64> {
        let since = episode?.since_ns;
        (since >= self.news_since_ns && since > 0).then(|| self.wall_of(since))
    }
}

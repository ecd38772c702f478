//! What happened between two readings of the probes.

use std::collections::BTreeMap;

use headroom_abi::block::{DiskKey, DiskStats, OpenRequest};
use headroom_core::hist::Hist;

use crate::probe::BlockReading;

/// Whose requests; `vm` is `None` for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    pub vm: Option<u16>,
    pub device: u32,
    pub op: u32,
}

/// Open requests at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub at_device: u64,
    pub queued: u64,
    /// Time that those at the device are there already, all together.
    pub at_device_ns: u64,
    pub oldest_ns: Option<u64>,
}

/// One kind of request in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    pub requests: u64,
    pub errors: u64,
    pub bytes: u64,
    pub queue_ns: u64,
    pub service_ns: u64,
    pub queue_hist: Hist,
    pub service_hist: Hist,
    /// Time at the device within the window, all requests together.
    pub in_flight_ns: Option<u64>,
    /// At the end of the window.
    pub open: Option<Open>,
}

/// All kinds with anything to tell.
pub struct Deltas {
    pub by_disk: BTreeMap<Disk, Delta>,
}

impl Deltas {
    /// `known` maps the number in the probes to that of a VM that still has
    /// it; all others count as the host's.
    pub fn between(
        base: &BlockReading,
        now: &BlockReading,
        known: impl Fn(u32) -> Option<u16>,
    ) -> Self {
        let disk = |key: &DiskKey| Disk {
            vm: known(key.vm),
            device: key.device,
            op: key.op,
        };
        let mut by_disk: BTreeMap<Disk, Delta> = BTreeMap::new();
        for (key, stats) in &now.stats {
            let zero = DiskStats::ZERO;
            let then = base.stats.get(key).unwrap_or(&zero);
            by_disk.entry(disk(key)).or_default().add(then, stats);
        }
        let (before, after) = (Opens::of(base, disk), Opens::of(now, disk));
        for key in after.by_disk.keys() {
            by_disk.entry(*key).or_default();
        }
        for (key, delta) in &mut by_disk {
            delta.open = after.get(key);
            // What was open before has a part of its time in the last window.
            delta.in_flight_ns = before.get(key).zip(delta.open).map(|(before, after)| {
                (delta.service_ns + after.at_device_ns).saturating_sub(before.at_device_ns)
            });
        }
        by_disk.retain(|_, delta| delta.tells());
        Self { by_disk }
    }
}

impl Delta {
    fn add(&mut self, then: &DiskStats, now: &DiskStats) {
        self.requests += now.requests.saturating_sub(then.requests);
        self.errors += now.errors.saturating_sub(then.errors);
        self.bytes += now.bytes.saturating_sub(then.bytes);
        self.queue_ns += now.queue_ns.saturating_sub(then.queue_ns);
        self.service_ns += now.service_ns.saturating_sub(then.service_ns);
        let less = |now, then| Hist::from_counts(now).since(&Hist::from_counts(then));
        self.queue_hist
            .merge(&less(now.queue_hist, then.queue_hist));
        self.service_hist
            .merge(&less(now.service_hist, then.service_hist));
    }

    fn tells(&self) -> bool {
        self.requests > 0
            || self.in_flight_ns.is_some_and(|ns| ns > 0)
            || self.open.is_some_and(|o| o.at_device + o.queued > 0)
    }
}

/// Open requests by disk; `None` inside when they are not known.
struct Opens {
    known: bool,
    by_disk: BTreeMap<Disk, Open>,
}

impl Opens {
    fn of(reading: &BlockReading, disk: impl Fn(&DiskKey) -> Disk) -> Self {
        let mut by_disk: BTreeMap<Disk, Open> = BTreeMap::new();
        for request in reading.open.iter().flatten() {
            let open = by_disk.entry(disk(&request.key)).or_default();
            open.add(request, reading.at_ns);
        }
        Self {
            known: reading.open.is_some(),
            by_disk,
        }
    }

    fn get(&self, key: &Disk) -> Option<Open> {
        self.known
            .then(|| self.by_disk.get(key).copied().unwrap_or_default())
    }
}

impl Open {
    fn add(&mut self, request: &OpenRequest, at_ns: u64) {
        let since = |ns: u64| at_ns.saturating_sub(ns);
        if request.issue_ns == 0 {
            self.queued += 1;
        } else {
            self.at_device += 1;
            self.at_device_ns += since(request.issue_ns);
        }
        let begin = match request.start_ns {
            0 => request.issue_ns,
            start => start,
        };
        self.oldest_ns = self.oldest_ns.max(Some(since(begin)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_abi::block::op;

    fn key(vm: u32) -> DiskKey {
        DiskKey {
            vm,
            device: 8 << 20,
            op: op::READ,
        }
    }

    fn reading(at_ns: u64, service_ns: u64, open: &[(u64, u64)]) -> BlockReading {
        let mut stats = DiskStats::ZERO;
        stats.requests = service_ns / 10;
        stats.service_ns = service_ns;
        let open = open.iter().map(|(start_ns, issue_ns)| OpenRequest {
            start_ns: *start_ns,
            issue_ns: *issue_ns,
            key: key(1),
            bytes: 512,
        });
        BlockReading {
            at_ns,
            stats: [(key(1), stats)].into(),
            open: Some(open.collect()),
            ..BlockReading::default()
        }
    }

    fn only(base: &BlockReading, now: &BlockReading) -> Delta {
        let deltas = Deltas::between(base, now, |vm| u16::try_from(vm).ok());
        let mut all = deltas.by_disk.into_iter();
        let (disk, delta) = all.next().unwrap();
        assert_eq!((disk.vm, all.next().is_none()), (Some(1), true));
        delta
    }

    #[test]
    fn time_at_the_device_is_split_at_the_windows_edges() {
        // Open since 40 at 100, completed after 60 more: 60 of its 120 ns are
        // this window's; another is open for the last 30.
        let base = reading(100, 50, &[(30, 40)]);
        let now = reading(200, 50 + 120, &[(160, 170), (190, 0)]);
        let delta = only(&base, &now);
        assert_eq!(delta.in_flight_ns, Some(120 + 30 - 60));
        let open = delta.open.unwrap();
        assert_eq!((open.at_device, open.queued), (1, 1));
        assert_eq!(open.oldest_ns, Some(40));
    }

    #[test]
    fn a_request_that_never_ends_shows() {
        let (base, now) = (reading(100, 0, &[(0, 90)]), reading(200, 0, &[(0, 90)]));
        let delta = only(&base, &now);
        assert_eq!((delta.requests, delta.in_flight_ns), (0, Some(100)));
        // Its start was not seen.
        assert_eq!(delta.open.unwrap().oldest_ns, Some(110));
    }

    #[test]
    fn open_requests_that_could_not_be_read_are_unavailable() {
        let (base, mut now) = (reading(100, 0, &[]), reading(200, 50, &[]));
        now.open = None;
        let delta = only(&base, &now);
        assert_eq!((delta.in_flight_ns, delta.open), (None, None));
        assert_eq!(delta.requests, 5);
    }

    #[test]
    fn what_a_vm_that_is_gone_left_is_the_hosts() {
        let now = reading(200, 50, &[]);
        let deltas = Deltas::between(&BlockReading::default(), &now, |_| None);
        assert_eq!(deltas.by_disk.keys().next().unwrap().vm, None);
    }
}

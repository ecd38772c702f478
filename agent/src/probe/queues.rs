//! What the programs of family `virtio` count, for its observer.

use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use headroom_abi::sched::PIDS_PER_ELEMENT;
use headroom_abi::virtio::{Doorbell, DoorbellKey, QueueStats};

use crate::probe::error::ProbeError;
use crate::probe::map::{DoorbellRecord, Mapped, PidElement, QueueRecord, WhichDoorbell};
use crate::sampler::virtio::QueueSource;

/// The maps of the family. Reading a thread costs one look-up by a system
/// call, the counters are in shared memory; a doorbell costs two calls.
pub struct Queues {
    pub(super) pids: Array<MapData, PidElement>,
    pub(super) stats: Mapped<QueueStats>,
    pub(super) bells: HashMap<MapData, WhichDoorbell, DoorbellRecord>,
    pub(super) scheduler: &'static str,
    pub(super) without_kvm: Option<String>,
}

impl QueueSource for Queues {
    fn slot(&self, tid: u32) -> Option<u32> {
        let element = self.pids.get(&(tid / PIDS_PER_ELEMENT), 0).ok()?;
        let lane = (tid % PIDS_PER_ELEMENT) as usize;
        let slot = u32::from(*element.0.slot.get(lane)?);
        (slot != 0 && (slot as usize) < self.stats.len()).then_some(slot)
    }

    fn read(&self, slot: u32) -> (QueueStats, u64) {
        self.stats.words(slot as usize)
    }

    fn doorbells(&self) -> Vec<(DoorbellKey, Doorbell)> {
        // One that is removed meanwhile, by us alone, ends nothing else.
        self.bells
            .iter()
            .flatten()
            .map(|(key, bell)| (key.0, bell.0))
            .collect()
    }

    fn forget(&mut self, vm: u16) {
        let gone = self.bells.keys().flatten();
        let gone: Vec<_> = gone.filter(|key| key.0.vm == u64::from(vm)).collect();
        for key in gone {
            // It can only be gone already.
            drop(self.bells.remove(&key));
        }
    }

    fn scheduler(&self) -> &'static str {
        self.scheduler
    }

    fn without_kvm(&self) -> Option<&str> {
        self.without_kvm.as_deref()
    }
}

/// A second handle on an array, for another owner.
pub(super) fn again(map: &Map) -> Result<Array<MapData, PidElement>, ProbeError> {
    let opened = || {
        let Map::Array(data) = map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(MapError::IoError)?;
        Array::try_from(Map::Array(MapData::from_fd(fd)?))
    };
    opened().map_err(|source| ProbeError::Map {
        operation: "opening again",
        source,
    })
}

/// A record for a thread that is registered now.
pub(super) const EMPTY: QueueRecord = QueueRecord(QueueStats::EMPTY);

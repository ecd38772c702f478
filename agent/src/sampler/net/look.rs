//! One look at all network devices of the host's VMs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::QueueDrops;
use super::devices::{self, Counters, Device, Devices, Kind};
use super::owners::{self, Claim};
use super::qdisc::{self, Passed, Qdiscs};
use crate::clock::monotonic_ns;
use crate::files;
use crate::probe::NetDrops;

/// Reads devices and their figures.
pub struct Looker {
    proc: PathBuf,
    devices: Devices,
    drops: Result<NetDrops, String>,
    complained: bool,
}

/// What one look saw.
#[derive(Default)]
pub struct Look {
    at_ns: u64,
    /// Devices of the agent's own network namespace.
    own: HashMap<String, Device>,
    counters: HashMap<String, Counters>,
    qdiscs: HashMap<u32, Qdiscs>,
    queues: HashMap<String, u64>,
    drops: Option<QueueDrops>,
    /// Namespace of each VM that has another, and figures in it.
    elsewhere: HashMap<u32, u64>,
    foreign: HashMap<u64, HashMap<String, Counters>>,
}

/// Cumulative figures of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub at_ns: u64,
    /// What it is; `None` in another namespace, where a tap is assumed.
    pub device: Option<Device>,
    pub counters: Counters,
    pub root: Option<Passed>,
    /// Queues towards the guest.
    pub count: Option<u64>,
    pub queues: BTreeMap<u32, Queue>,
}

/// Cumulative figures of one queue towards the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub passed: Option<Passed>,
    pub ring_drops: Option<u64>,
}

impl Looker {
    pub fn new(proc: PathBuf, sys: PathBuf, drops: Result<NetDrops, String>) -> Self {
        Self {
            proc,
            devices: Devices::new(sys),
            drops,
            complained: false,
        }
    }

    /// How drops by queue are told, or why they are not.
    pub fn drops_status(&self) -> Result<&'static str, String> {
        self.drops
            .as_ref()
            .map(NetDrops::source)
            .map_err(Clone::clone)
    }

    /// Drops that no queue is charged with.
    pub fn lost_drops(&self) -> Option<u64> {
        self.drops.as_ref().ok()?.lost()
    }

    /// Looks at the devices of all namespaces of these processes.
    pub fn look(&mut self, pids: &[u32]) -> Look {
        let mut look = Look {
            at_ns: monotonic_ns(),
            ..Look::default()
        };
        if pids.is_empty() {
            return look;
        }
        // The thread's, for a process may have several namespaces.
        look.counters = self.counters("thread-self");
        look.own = self.devices.find(look.counters.keys());
        for name in look.own.keys() {
            look.queues
                .extend(self.devices.queues(name).map(|n| (name.clone(), n)));
        }
        if !look.own.is_empty() {
            look.qdiscs = self.qdiscs();
            let indexes: HashSet<u32> = look.own.values().map(|d| d.ifindex).collect();
            let drops = self.drops.as_mut().ok();
            look.drops = drops.map(|d| d.read(|index| indexes.contains(&index)));
        }
        let own = owners::namespace(&self.proc, "thread-self");
        for pid in pids {
            let Some(namespace) = owners::namespace(&self.proc, &pid.to_string()) else {
                continue;
            };
            if Some(namespace) != own {
                look.elsewhere.insert(*pid, namespace);
                let counters = || self.counters(&pid.to_string());
                look.foreign.entry(namespace).or_insert_with(counters);
            }
        }
        look
    }

    fn counters(&self, task: &str) -> HashMap<String, Counters> {
        let path = self.proc.join(task).join("net/dev");
        let text = files::text(path).unwrap_or_default();
        devices::counters(&text)
    }

    fn qdiscs(&mut self) -> HashMap<u32, Qdiscs> {
        match qdisc::read() {
            Ok(qdiscs) => qdiscs,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "queueing disciplines can't be read");
                }
                HashMap::new()
            }
        }
    }
}

impl Look {
    /// Devices of each process in the order of `pids`, and how they matched.
    pub fn assign(&self, pids: &[u32], claims: &[&Claim]) -> Vec<Vec<(String, &'static str)>> {
        let here: Vec<usize> = (0..pids.len())
            .filter(|i| !self.elsewhere.contains_key(&pids[*i]))
            .collect();
        let those: Vec<&Claim> = here.iter().map(|i| claims[*i]).collect();
        let mut own = owners::assign(&those, &self.own);
        let mut out = vec![Vec::new(); pids.len()];
        for (place, i) in here.into_iter().enumerate() {
            out[i] = own.remove(&place).unwrap_or_default();
        }
        for (i, pid) in pids.iter().enumerate() {
            let Some(namespace) = self.elsewhere.get(pid) else {
                continue;
            };
            let there = self.elsewhere.values().filter(|n| *n == namespace);
            if let Some(counters) = self.foreign.get(namespace) {
                let alone = there.count() == 1;
                out[i] = owners::assign_foreign(claims[i], counters.keys(), alone);
            }
        }
        out
    }

    /// Figures of a process's device.
    pub fn reading(&self, pid: u32, name: &str) -> Option<Reading> {
        if let Some(namespace) = self.elsewhere.get(&pid) {
            return Some(Reading {
                at_ns: self.at_ns,
                counters: *self.foreign.get(namespace)?.get(name)?,
                ..Reading::default()
            });
        }
        let device = self.own.get(name)?;
        let qdiscs = self.qdiscs.get(&device.ifindex);
        Some(Reading {
            at_ns: self.at_ns,
            counters: *self.counters.get(name)?,
            root: qdiscs.and_then(|q| q.root),
            count: self.queues.get(name).copied(),
            queues: self.queue_readings(device, name, qdiscs),
            device: Some(device.clone()),
        })
    }

    /// Queues of a tap; below a root other than `mq` the only one is the
    /// device itself.
    fn queue_readings(
        &self,
        device: &Device,
        name: &str,
        qdiscs: Option<&Qdiscs>,
    ) -> BTreeMap<u32, Queue> {
        let count = self.queues.get(name).copied().unwrap_or(0);
        if device.kind != Kind::Tap {
            return BTreeMap::new();
        }
        let only = qdiscs.and_then(|q| q.root).filter(|_| count == 1);
        let queue = |number: u32| {
            let ring_drops = self.drops.as_ref().map(|drops| {
                let drops = drops.get(&(device.ifindex, number));
                drops.copied().unwrap_or(0)
            });
            let passed = qdiscs.and_then(|q| q.queues.get(&number).copied());
            let passed = passed.or(only);
            (number, Queue { passed, ring_drops })
        };
        (0..u32::try_from(count).unwrap_or(0)).map(queue).collect()
    }
}

impl Reading {
    /// Whether an earlier reading was of the same device: another that took
    /// its name has another index, and in a foreign namespace, where that is
    /// not to be seen, counts from 0.
    pub fn continues(&self, before: &Self) -> bool {
        let index = |r: &Self| r.device.as_ref().map(|d| d.ifindex);
        let grew = self.counters.rx.packets >= before.counters.rx.packets
            && self.counters.tx.packets >= before.counters.tx.packets;
        index(self) == index(before) && grew
    }
}

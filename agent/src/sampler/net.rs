//! Network devices of VMs, seen from the host's end of each.
//!
//! Packets, bytes and drops of a tap come from `/proc/net/dev`; packets by
//! queue from the disciplines below `mq`; drops by queue from a BPF program at
//! `skb:kfree_skb`, for the kernel adds them up over all queues.

mod devices;
mod host;
mod look;
mod nics;
mod owners;
mod qdisc;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use headroom_core::batch::Chunk;

use super::observe::{FamilyStatus, Observer, Scene, SceneVm};
use super::rows::Frame;
use crate::discover::VmKey;
use crate::probe::NetDrops;
use host::HostNet;
use look::{Look, Looker, Reading};
use owners::Claim;

/// Looks in which a VM without any device is searched for one each second: it
/// may get it only after its vCPUs run.
const SETTLING: u8 = 3;

/// Cumulative drops by device index and queue.
type QueueDrops = HashMap<(u32, u32), u64>;

/// Observes taps and macvtaps, and the host's own network figures.
pub struct Net {
    proc: PathBuf,
    looker: Looker,
    vms: BTreeMap<VmKey, VmNet>,
    host: HostNet,
}

#[derive(Default)]
struct VmNet {
    claim: Claim,
    looks: u8,
    links: BTreeMap<String, Link>,
}

/// A device of a VM.
struct Link {
    matched: &'static str,
    base: Reading,
    now: Reading,
}

impl Net {
    /// Of the host with that `/proc`, and the probe of drops or why there is
    /// none.
    pub fn new(proc: PathBuf, drops: Result<NetDrops, String>) -> Self {
        Self {
            looker: Looker::new(proc.clone(), "/sys/class/net".into(), drops),
            host: HostNet::new(&proc),
            vms: BTreeMap::new(),
            proc,
        }
    }

    /// Looks at all devices and gives each VM its own.
    fn look(&mut self, scene: &Scene<'_>) {
        let live: Vec<&SceneVm<'_>> = scene.vms.iter().filter(|vm| vm.live).collect();
        let pids: Vec<u32> = live.iter().map(|vm| vm.vm.key.pid).collect();
        let look = self.looker.look(&pids);
        let claims: Vec<&Claim> = live
            .iter()
            .filter_map(|vm| self.vms.get(&vm.vm.key))
            .map(|vm| &vm.claim)
            .collect();
        if claims.len() != live.len() {
            return;
        }
        let owned = look.assign(&pids, &claims);
        for ((vm, pid), links) in live.iter().zip(&pids).zip(owned) {
            if let Some(known) = self.vms.get_mut(&vm.vm.key) {
                known.update(&look, *pid, links);
            }
        }
    }
}

impl VmNet {
    fn update(&mut self, look: &Look, pid: u32, links: Vec<(String, &'static str)>) {
        let mut before = std::mem::take(&mut self.links);
        for (name, matched) in links {
            let Some(now) = look.reading(pid, &name) else {
                continue;
            };
            let same = |link: &Link| now.continues(&link.now);
            let base = match before.remove(&name).filter(same) {
                Some(link) => link.base,
                None => now.clone(),
            };
            self.links.insert(name, Link { matched, base, now });
        }
    }
}

impl Observer for Net {
    fn status(&self) -> Vec<FamilyStatus> {
        let queues = self.looker.drops_status();
        vec![
            FamilyStatus {
                family: "net",
                source: Some("/proc/net/dev, rtnetlink".to_owned()),
                reason: None,
            },
            FamilyStatus {
                family: "net_queues",
                source: queues.as_ref().ok().map(|kind| (*kind).to_owned()),
                reason: queues.err(),
            },
        ]
    }

    /// Only a VM that is new, or has no device yet, is looked for.
    fn tick(&mut self, scene: &Scene<'_>) {
        let mut fresh = false;
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let known = self.vms.entry(vm.vm.key.clone()).or_default();
            if known.looks < SETTLING && known.links.is_empty() {
                known.looks += 1;
                known.claim = Claim::read(&self.proc, vm.vm.key.pid);
                fresh = true;
            }
        }
        if fresh {
            self.look(scene);
        }
    }

    fn window(&mut self, frame: &Frame<'_>, scene: &Scene<'_>) -> Vec<Chunk> {
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let known = self.vms.entry(vm.vm.key.clone()).or_default();
            if known.links.is_empty() {
                known.claim = Claim::read(&self.proc, vm.vm.key.pid);
            }
        }
        self.look(scene);
        let without_drops = self.looker.drops_status().err();
        let mut out = Vec::new();
        for vm in scene.vms.iter().filter(|vm| vm.live) {
            let Some(known) = self.vms.get_mut(&vm.vm.key) else {
                continue;
            };
            for (name, link) in &mut known.links {
                let of = rows::Of {
                    frame,
                    vm: vm.vm,
                    device: name,
                    matched: link.matched,
                    without_drops: without_drops.as_deref(),
                };
                out.extend(of.rows(&link.base, &link.now));
                link.base = link.now.clone();
            }
        }
        let live = |key: &VmKey| scene.vms.iter().any(|vm| vm.live && vm.vm.key == *key);
        self.vms.retain(|key, _| live(key));
        let host = self.host.row(frame, self.looker.lost_drops());
        vec![Chunk::of(&out), Chunk::of(&[host])]
    }
}

#[cfg(test)]
mod tests;

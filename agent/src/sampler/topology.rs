//! Rows of the host's CPUs and NUMA nodes.

use std::path::PathBuf;

use headroom_core::batch::Chunk;
use headroom_core::rows::{TopologyNodeRow, TopologyRow};

use super::observe::{FamilyStatus, Observer, Scene};
use super::repeat::due;
use super::rows::{Frame, count, int};
use crate::files;
use crate::topology::capacity::{self, Capacity};
use crate::topology::{self, Cpu, Node, Topology, list};

/// Tells the topology at start, when CPUs or nodes come and go, and every ten
/// minutes. In between it reads two small files a window; a new frequency
/// limit or microcode shows at the next ten minutes.
pub struct TopologyFamily {
    sys: PathBuf,
    proc: PathBuf,
    topology: Topology,
    mark: Option<[Option<String>; 2]>,
    told: Option<i64>,
}

impl TopologyFamily {
    /// Of the host whose `/sys` and `/proc` these are.
    #[must_use]
    pub fn new(sys: PathBuf, proc: PathBuf) -> Self {
        Self {
            topology: topology::read(&sys, &proc),
            sys,
            proc,
            mark: None,
            told: None,
        }
    }

    /// Changes with every CPU or node that comes or goes.
    fn mark(&self) -> [Option<String>; 2] {
        ["cpu/online", "node/online"]
            .map(|file| files::text(self.sys.join("devices/system").join(file)))
    }
}

impl Observer for TopologyFamily {
    fn status(&self) -> Vec<FamilyStatus> {
        let online = || self.topology.cpus.iter().filter(|c| c.online);
        let lacks = [
            (
                online().all(|c| c.l3.is_none()),
                "the kernel names no L3 domains",
            ),
            (
                online().all(|c| c.mhz_max.is_none()),
                "no cpufreq driver tells the highest frequency, as in most VMs",
            ),
            (
                online().all(|c| c.mhz_max.is_none() && c.mhz_base.is_none()),
                "capacity takes every CPU for one of 3000 MHz",
            ),
        ];
        let lacks: Vec<&str> = lacks
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, w)| *w)
            .collect();
        vec![FamilyStatus {
            family: "topology",
            source: (!self.topology.cpus.is_empty()).then(|| "sysfs".to_owned()),
            reason: (!lacks.is_empty()).then(|| lacks.join("; ")),
        }]
    }

    fn window(&mut self, frame: &Frame<'_>, _: &Scene<'_>) -> Vec<Chunk> {
        let mark = self.mark();
        if self.mark.as_ref() == Some(&mark) && !due(self.told, frame.ts) {
            return Vec::new();
        }
        self.topology = topology::read(&self.sys, &self.proc);
        (self.mark, self.told) = (Some(mark), Some(frame.ts));
        let Topology { cpus, nodes } = &self.topology;
        let rows: Vec<TopologyRow> = cpus
            .iter()
            .zip(capacity::of(cpus))
            .map(|(cpu, capacity)| cpu_row(frame, cpu, capacity))
            .collect();
        let nodes: Vec<TopologyNodeRow> = nodes.iter().map(|n| node_row(frame, n)).collect();
        vec![Chunk::of(&rows), Chunk::of(&nodes)]
    }
}

fn cpu_row(frame: &Frame<'_>, cpu: &Cpu, capacity: Option<Capacity>) -> TopologyRow {
    let siblings: Vec<String> = cpu.smt_siblings.iter().map(u32::to_string).collect();
    let (cores, source) = capacity.map(|c| (c.cores, c.source)).unzip();
    TopologyRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        cpu: cpu.cpu.into(),
        online: cpu.online.into(),
        socket: cpu.socket.map(i64::from),
        node: cpu.node.map(i64::from),
        core: cpu.core.map(i64::from),
        smt_siblings: cpu.online.then(|| siblings.join(",")),
        smt: cpu.online.then(|| count(siblings.len())),
        l3: cpu.l3.map(i64::from),
        model: cpu.model.clone(),
        generation: cpu.generation.clone(),
        microcode: cpu.microcode.clone(),
        mhz_max: cpu.mhz_max,
        mhz_base: cpu.mhz_base,
        capacity: cores,
        capacity_source: source,
    }
}

fn node_row(frame: &Frame<'_>, node: &Node) -> TopologyNodeRow {
    let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
    TopologyNodeRow {
        ts: frame.ts,
        host: frame.host.to_owned(),
        node: node.node.into(),
        cpus: (!node.cpus.is_empty()).then(|| list::format(&node.cpus)),
        memory_bytes: node.memory_bytes.map(int),
        distances: (!distances.is_empty()).then(|| distances.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::repeat::REPEAT_US;
    use super::*;

    fn rows(family: &mut TopologyFamily, ts: i64) -> Vec<usize> {
        let frame = Frame { ts, host: "h1" };
        let chunks = family.window(&frame, &Scene::default());
        chunks.iter().map(Chunk::rows).collect()
    }

    #[test]
    fn told_at_start_on_change_and_every_ten_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let cpu = dir.path().join("devices/system/cpu");
        fs::create_dir_all(&cpu).unwrap();
        fs::write(cpu.join("online"), "0-1\n").unwrap();
        fs::write(cpu.join("present"), "0-1\n").unwrap();
        let mut family = TopologyFamily::new(dir.path().into(), dir.path().into());
        assert_eq!(rows(&mut family, 10), [2, 1]);
        assert!(rows(&mut family, 20).is_empty());
        assert!(rows(&mut family, 9 + REPEAT_US).is_empty());
        assert_eq!(rows(&mut family, 10 + REPEAT_US), [2, 1]);
        fs::write(cpu.join("online"), "0\n").unwrap();
        assert_eq!(rows(&mut family, 11 + REPEAT_US), [2, 1]);
        assert!(!family.topology.cpus[1].online);
        // The clock is set back.
        assert_eq!(rows(&mut family, 5), [2, 1]);
    }

    #[test]
    fn what_is_unavailable_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let family = TopologyFamily::new(dir.path().into(), dir.path().into());
        assert_eq!(family.status()[0].source, None);
        let here = TopologyFamily::new("/sys".into(), "/proc".into());
        assert_eq!(here.status()[0].source.as_deref(), Some("sysfs"));
    }
}

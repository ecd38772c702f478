//! Nodes of the host and their CPUs.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::files;
use crate::topology::list;

/// The nodes of `/sys/devices/system/node`.
pub struct Topology {
    root: PathBuf,
    /// CPU threads of each online node with CPUs or memory.
    pub nodes: BTreeMap<u32, Vec<u32>>,
    node_of: HashMap<u32, u32>,
}

impl Topology {
    /// Reads the nodes; a kernel without NUMA has none and counts as one
    /// node, 0.
    pub fn of(root: PathBuf) -> Self {
        let online = list::read(root.join("online")).unwrap_or_default();
        let cpus = |node: u32| {
            let path = root.join(format!("node{node}/cpulist"));
            (node, list::read(path).unwrap_or_default())
        };
        let mut nodes: BTreeMap<u32, Vec<u32>> = online.into_iter().map(cpus).collect();
        if nodes.is_empty() {
            nodes.insert(0, Vec::new());
        }
        let pairs = nodes
            .iter()
            .flat_map(|(node, cpus)| cpus.iter().map(|cpu| (*cpu, *node)));
        Self {
            node_of: pairs.collect(),
            nodes,
            root,
        }
    }

    /// Node of a CPU.
    pub fn node_of(&self, cpu: u32) -> Option<u32> {
        self.node_of.get(&cpu).copied()
    }

    /// A file of a node.
    pub fn file(&self, node: u32, name: &str) -> Option<String> {
        files::text(self.root.join(format!("node{node}/{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("online", "0-1,3\n");
        write("node0/cpulist", "0-1,4\n");
        write("node1/cpulist", "2-3\n");
        // Memory without CPUs.
        write("node3/cpulist", "\n");
        let topology = Topology::of(dir.path().into());
        assert_eq!(topology.nodes[&0], [0, 1, 4]);
        assert_eq!((topology.nodes.len(), topology.nodes[&3].len()), (3, 0));
        assert_eq!((topology.node_of(3), topology.node_of(5)), (Some(1), None));
        let none = Topology::of(dir.path().join("none"));
        assert_eq!(none.nodes.len(), 1);
    }
}

//! CPUs and their NUMA nodes.

use std::fs;
use std::path::Path;

use crate::probe::error::ProbeError;
use crate::topology::list;

/// NUMA node of each possible CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// By CPU number; 0 where the kernel names no node.
    pub node_of_cpu: Vec<u32>,
    /// Nodes that have CPUs, at least 1.
    pub nodes: usize,
}

/// Of this host.
///
/// # Errors
/// The kernel does not say which CPUs are possible.
pub fn topology() -> Result<Topology, ProbeError> {
    read(Path::new("/sys/devices/system"))
}

fn read(root: &Path) -> Result<Topology, ProbeError> {
    let path = root.join("cpu/possible");
    let broken = |source| ProbeError::Topology {
        path: path.display().to_string(),
        source,
    };
    let possible = fs::read_to_string(&path).map_err(broken)?;
    let last = list::parse(&possible).and_then(|cpus| cpus.into_iter().max());
    let last = last.ok_or_else(|| broken(std::io::ErrorKind::InvalidData.into()))?;
    let mut node_of_cpu = vec![0; last as usize + 1];
    let mut nodes = 0;
    // A kernel without NUMA has no such directory: one node.
    for entry in fs::read_dir(root.join("node"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let Some(node) = name
            .to_str()
            .and_then(|n| n.strip_prefix("node")?.parse().ok())
        else {
            continue;
        };
        let members = list::read(entry.path().join("cpulist")).unwrap_or_default();
        nodes += usize::from(!members.is_empty());
        for cpu in members {
            if let Some(place) = node_of_cpu.get_mut(cpu as usize) {
                *place = node;
            }
        }
    }
    Ok(Topology {
        node_of_cpu,
        nodes: nodes.max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_node() {
        let topology = topology().unwrap();
        assert!(topology.nodes >= 1);
        assert!(!topology.node_of_cpu.is_empty());
    }

    #[test]
    fn two_nodes_and_one_without_cpus() {
        let root = std::env::temp_dir().join(format!("headroom-nodes-{}", std::process::id()));
        for (file, text) in [
            ("cpu/possible", "0-3\n"),
            ("node/node0/cpulist", "0,2\n"),
            ("node/node1/cpulist", "1,3\n"),
            ("node/node2/cpulist", "\n"),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = read(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            found,
            Topology {
                node_of_cpu: vec![0, 1, 0, 1],
                nodes: 2
            }
        );
    }
}

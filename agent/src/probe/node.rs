//! CPUs and their NUMA nodes.

use std::fs;
use std::path::Path;

use crate::probe::error::ProbeError;

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
    let last = cpus(&possible).into_iter().max();
    let last = last.ok_or_else(|| broken(std::io::ErrorKind::InvalidData.into()))?;
    let mut node_of_cpu = vec![0; last + 1];
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
        let list = fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
        let members = cpus(&list);
        nodes += usize::from(!members.is_empty());
        for cpu in members {
            if let Some(place) = node_of_cpu.get_mut(cpu) {
                *place = node;
            }
        }
    }
    Ok(Topology {
        node_of_cpu,
        nodes: nodes.max(1),
    })
}

/// CPU numbers of a list such as `0-3,8`; parts that are none are left out.
fn cpus(list: &str) -> Vec<usize> {
    let part = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        // NR_CPUS is at most 8192 on x86-64.
        (to < 65_536).then_some(from..=to)
    };
    list.trim().split(',').filter_map(part).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpus("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpus("\n"), Vec::<usize>::new());
        assert_eq!(cpus("0-99999999999"), Vec::<usize>::new());
    }

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

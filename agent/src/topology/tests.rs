use std::fs;
use std::path::Path;

use super::*;

/// A `/sys` and `/proc` of our own making.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn cpu(&self, cpu: u32, file: &str, text: &str) {
        self.write(&format!("devices/system/cpu/cpu{cpu}/{file}"), text);
    }

    fn read(&self) -> Topology {
        read(self.root(), self.root())
    }
}

fn xeon(cpus: u32) -> String {
    let block = |n| {
        format!(
            "processor\t: {n}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n\
             model name\t: Intel(R) Xeon(R) Gold 6240 CPU @ 2.60GHz\nstepping\t: 7\n\
             microcode\t: 0x5003604\ncpu MHz\t\t: 3299.998\nphysical id\t: 0\n\
             flags\t\t: fpu vme aperfmperf\npower management:\n"
        )
    };
    (0..cpus).map(block).collect::<Vec<_>>().join("\n")
}

/// Two sockets of two cores with two threads: 0-3 are the first threads, 4-7
/// their siblings. One CPU more is offline.
fn two_sockets() -> Tree {
    let tree = Tree::new();
    tree.write("devices/system/cpu/online", "0-7");
    tree.write("devices/system/cpu/present", "0-8");
    tree.write("devices/system/node/online", "0-2");
    tree.write("cpuinfo", &xeon(8));
    for cpu in 0..8 {
        let (core, socket) = (cpu % 4, cpu % 4 / 2);
        let (l3, index3) = (2 * socket, "cache/index3");
        tree.cpu(cpu, "topology/physical_package_id", &socket.to_string());
        // Counted within the socket: no name for a core of the host.
        tree.cpu(cpu, "topology/core_id", &(core % 2).to_string());
        tree.cpu(
            cpu,
            "topology/core_cpus_list",
            &format!("{core},{}", core + 4),
        );
        for (index, level) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            tree.cpu(
                cpu,
                &format!("cache/index{index}/level"),
                &level.to_string(),
            );
        }
        let shared = format!("{l3}-{},{}-{}", l3 + 1, l3 + 4, l3 + 5);
        tree.cpu(cpu, &format!("{index3}/shared_cpu_list"), &shared);
        tree.cpu(cpu, "cpufreq/cpuinfo_max_freq", "3900000");
        tree.cpu(cpu, "cpufreq/base_frequency", "2600000");
    }
    for (node, cpus, kib, distance) in [
        (0, "0-1,4-5", 16_777_216, "10 21 17"),
        (1, "2-3,6-7", 8_388_608, "21 10 28"),
        // Memory alone, as of a CXL card.
        (2, "", 4_194_304, "17 28 10"),
    ] {
        let dir = format!("devices/system/node/node{node}");
        tree.write(&format!("{dir}/cpulist"), cpus);
        tree.write(&format!("{dir}/distance"), distance);
        let meminfo = format!("Node {node} MemTotal:       {kib} kB\nNode {node} MemFree: 1 kB");
        tree.write(&format!("{dir}/meminfo"), &meminfo);
    }
    tree
}

#[test]
fn two_sockets_with_smt() {
    let t = two_sockets().read();
    assert_eq!(t.cpus.len(), 9);
    let five = &t.cpus[5];
    assert_eq!(
        (five.cpu, five.online, five.socket, five.node, five.core),
        (5, true, Some(0), Some(0), Some(1))
    );
    assert_eq!((&five.smt_siblings[..], five.l3), (&[1, 5][..], Some(0)));
    let six = &t.cpus[6];
    assert_eq!(
        (six.socket, six.node, six.core, six.l3),
        (Some(1), Some(1), Some(2), Some(2))
    );
    assert_eq!(
        six.model.as_deref(),
        Some("Intel(R) Xeon(R) Gold 6240 CPU @ 2.60GHz")
    );
    assert_eq!(six.generation.as_deref(), Some("GenuineIntel 6 85 7"));
    assert_eq!(six.microcode.as_deref(), Some("0x5003604"));
    assert_eq!((six.mhz_max, six.mhz_base), (Some(3900.0), Some(2600.0)));
    assert_eq!(
        t.cpus[8],
        Cpu {
            cpu: 8,
            ..Cpu::default()
        }
    );
    assert_eq!(
        t.nodes[1],
        Node {
            node: 1,
            cpus: vec![2, 3, 6, 7],
            memory_bytes: Some(8 << 30),
            distances: vec![21, 10, 28]
        }
    );
    assert_eq!(
        (t.nodes[2].cpus.len(), t.nodes[2].memory_bytes),
        (0, Some(4 << 30))
    );
}

#[test]
fn one_socket_without_l3_or_numa() {
    let tree = Tree::new();
    tree.write("devices/system/cpu/online", "0-1");
    tree.write("meminfo", "MemTotal:       2048 kB");
    tree.write(
        "cpuinfo",
        "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU architecture: 8\n\
         CPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\nprocessor\t: 1\n",
    );
    for cpu in 0..2 {
        tree.cpu(cpu, "topology/physical_package_id", "-1");
        tree.cpu(cpu, "topology/thread_siblings_list", &cpu.to_string());
        tree.cpu(cpu, "cache/index0/level", "1");
        tree.cpu(cpu, "cache/index1/level", "2");
        tree.cpu(cpu, "cache/index1/shared_cpu_list", "0-1");
    }
    let t = tree.read();
    let zero = &t.cpus[0];
    assert_eq!(
        (zero.socket, zero.node, zero.l3, &zero.smt_siblings[..]),
        (None, Some(0), None, &[0][..])
    );
    assert_eq!(
        (zero.generation.as_deref(), zero.mhz_max, zero.mhz_base),
        (Some("0x41 0x3 0xd0c 1"), None, None)
    );
    let node = Node {
        node: 0,
        cpus: vec![0, 1],
        memory_bytes: Some(2 << 20),
        distances: vec![],
    };
    assert_eq!(t.nodes, [node]);
}

#[test]
fn nothing_readable_is_no_failure() {
    let t = Tree::new().read();
    assert_eq!((t.cpus.len(), t.nodes.len()), (0, 1));
}

#[test]
fn a_present_frequency_is_no_base_frequency() {
    let of = |flags: &str| {
        let text =
            format!("processor : 0\nmodel name : AMD EPYC\ncpu MHz : 2599.5\nflags : {flags}");
        cpuinfo::parse(&text)[&0].mhz_base
    };
    assert_eq!(of("fpu aperfmperf"), None);
    assert_eq!(of("fpu hypervisor"), Some(2599.5));
}

fn cpu(siblings: &[u32], mhz_max: Option<f64>, cpu_capacity: Option<u32>) -> Cpu {
    Cpu {
        cpu: siblings[0],
        online: true,
        smt_siblings: siblings.to_vec(),
        mhz_max,
        cpu_capacity,
        ..Cpu::default()
    }
}

/// Row A17: the capacity differs for SMT siblings and for generations.
#[test]
fn capacity_tells_smt_and_generations_apart() {
    let of = |cpus: &[Cpu]| {
        let all = capacity::of(cpus).into_iter().flatten();
        all.map(|c| (c.cores, c.source)).collect::<Vec<_>>()
    };
    let (smt, source) = of(&[cpu(&[0, 4], Some(3900.0), None)]).remove(0);
    assert!((smt - 1178.0 / 1024.0 / 2.0 * 1.3).abs() < 1e-9);
    assert_eq!(source, "smt+mhz_max");
    // The same processor with SMT switched off, and an older one.
    let (alone, _) = of(&[cpu(&[0], Some(3900.0), None)]).remove(0);
    let (older, _) = of(&[cpu(&[0], Some(2400.0), None)]).remove(0);
    assert!((alone - 1.3).abs() < 1e-9 && (older - 0.8).abs() < 1e-9);
    assert!(smt < alone && 2.0 * smt > alone);
    // A host of big and little cores: the file of the kernel decides, the
    // fastest sets the scale.
    let both = of(&[
        cpu(&[0], Some(3000.0), Some(1024)),
        cpu(&[1], Some(2000.0), Some(512)),
    ]);
    assert!((both[0].0 - 1.0).abs() < 1e-9 && (both[1].0 - 0.5).abs() < 1e-9);
    assert_eq!(both[1].1, "cpu_capacity+mhz_max");
    // Unknown frequencies are said to be so.
    assert_eq!(of(&[cpu(&[0], None, None)]), [(1.0, String::new())]);
    assert_eq!(capacity::of(&[Cpu::default()]), [None]);
}

/// This host, checked against what the kernel says by other ways.
#[test]
fn this_host() {
    let t = read(Path::new("/sys"), Path::new("/proc"));
    let online: Vec<_> = t.cpus.iter().filter(|c| c.online).collect();
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let by_stat = stat
        .lines()
        .filter(|l| l.starts_with("cpu") && !l.starts_with("cpu "))
        .count();
    assert_eq!(online.len(), by_stat);
    for cpu in &online {
        assert!(cpu.smt_siblings.contains(&cpu.cpu), "{cpu:?}");
        assert!(t.nodes.iter().any(|n| Some(n.node) == cpu.node), "{cpu:?}");
        assert!(cpu.model.is_some() || cpu.generation.is_some(), "{cpu:?}");
    }
    let capacities = capacity::of(&t.cpus);
    assert_eq!(capacities.iter().flatten().count(), online.len());
    let memory: u64 = t.nodes.iter().filter_map(|n| n.memory_bytes).sum();
    assert!(memory > 64 << 20);
    println!("{t:#?}\n{capacities:?}");
}

use super::*;

/// Linux 6.1 with two nodes.
const NUMASTAT: [&str; 2] = [
    "numa_hit 93108\nnuma_miss 12\nnuma_foreign 0\ninterleave_hit 1131\nlocal_node 90861\nother_node 2259\n",
    "numa_hit 66250\nnuma_miss 0\nnuma_foreign 12\ninterleave_hit 1130\nlocal_node 62410\nother_node 3840\n",
];
const MEMINFO: &str = "Node 1 MemTotal:         502644 kB\nNode 1 MemFree:          301180 kB\nNode 1 MemUsed: 9 kB\n";
const VMSTAT: &str = "nr_free_pages 155\nnuma_hint_faults 9000\nnuma_hint_faults_local 6000\nnuma_pages_migrated 120\nnuma_pte_updates 99\npgmigrate_success 130\npgmigrate_fail 1\n";

fn two_nodes() -> (tempfile::TempDir, Topology) {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("online", "0-1\n");
    for (node, text) in NUMASTAT.iter().enumerate() {
        write(&format!("node{node}/numastat"), text);
        write(&format!("node{node}/cpulist"), &format!("{node}\n"));
    }
    write("node1/meminfo", MEMINFO);
    let topology = Topology::of(dir.path().into());
    (dir, topology)
}

#[test]
fn nodes_and_hint_faults_of_two_nodes() {
    let (_dir, topology) = two_nodes();
    let frame = Frame { ts: 1, host: "h" };
    let mut base = figures(NUMASTAT[0]);
    *base.get_mut("other_node").unwrap() -= 59;
    let row = node_row(&frame, &topology, 0, (Some(&base), &figures(NUMASTAT[0])));
    assert_eq!((row.other_node, row.numa_miss), (Some(59), Some(0)));
    let row = node_row(&frame, &topology, 1, (None, &figures(NUMASTAT[1])));
    assert_eq!((row.other_node, row.cpus), (None, Some(1)));
    assert_eq!(row.memory_bytes, Some(502_644 * 1024));
    assert_eq!(row.memory_free_bytes, Some(301_180 * 1024));
    let mut base = figures(VMSTAT);
    *base.get_mut("numa_hint_faults").unwrap() -= 1000;
    *base.get_mut("numa_hint_faults_local").unwrap() -= 250;
    let row = host_row(&frame, &topology, (&base, &figures(VMSTAT)));
    assert_eq!(
        (row.hint_faults, row.hint_faults_local, row.pages_migrated),
        (Some(1000), Some(250), Some(0))
    );
    assert_eq!(row.hint_faults_remote_share, Some(0.75));
    // A kernel without balancing, and nodes read from the directory itself.
    let row = host_row(&frame, &topology, (&Figures::new(), &Figures::new()));
    assert!(row.hint_faults.is_none() && row.reason.is_some());
    let mut host = HostNuma::new(&topology);
    assert_eq!(host.window(&frame, &topology)[0].rows(), 2);
}

#[test]
fn one_node_is_unavailable_not_nought() {
    let dir = tempfile::tempdir().unwrap();
    let topology = Topology::of(dir.path().into());
    let frame = Frame { ts: 1, host: "h" };
    let now = figures(VMSTAT);
    let row = host_row(&frame, &topology, (&now, &now));
    assert_eq!((row.hint_faults, row.pages_migrated), (None, None));
    assert_eq!(row.reason.as_deref(), Some(crate::sampler::numa::ONE_NODE));
    let now = figures(NUMASTAT[0]);
    let row = node_row(&frame, &topology, 0, (Some(&now), &now));
    assert_eq!((row.other_node, row.numa_hit), (None, None));
}

#[test]
fn modes_of_balancing() {
    let modes = ["0\n", "1", "2", "3"].map(|m| balancing(m).unwrap());
    assert_eq!(modes, ["off", "on", "tiering", "tiering"]);
    assert_eq!(balancing(""), None);
}

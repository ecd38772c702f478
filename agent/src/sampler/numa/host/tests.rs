use super::*;

/// Linux 6.1 with two nodes.
const TEXTS: [&str; 2] = [
    "numa_hit 93108\nnuma_miss 12\nnuma_foreign 0\ninterleave_hit 1131\nlocal_node 90861\nother_node 2259\n",
    "numa_hit 66250\nnuma_miss 0\nnuma_foreign 12\ninterleave_hit 1130\nlocal_node 62410\nother_node 3840\n",
];
const MEMINFO: &str = "Node 1 MemTotal:         502644 kB\nNode 1 MemFree:          301180 kB\nNode 1 MemUsed: 9 kB\n";
const VMSTAT_TEXT: &str = "nr_free_pages 155\nnuma_hint_faults 9000\nnuma_hint_faults_local 6000\nnuma_pages_migrated 120\nnuma_pte_updates 99\npgmigrate_success 130\npgmigrate_fail 1\n";

fn of_node(text: &str) -> Counters {
    Counters::parse(NUMASTAT, text)
}

fn of_host(text: &str) -> Counters {
    Counters::parse(VMSTAT, text)
}

fn two_nodes() -> (tempfile::TempDir, Topology) {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("online", "0-1\n");
    for (node, text) in TEXTS.iter().enumerate() {
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
    let base = of_node(&TEXTS[0].replace("other_node 2259", "other_node 2200"));
    let row = node_row(&frame, &topology, 0, (Some(&base), &of_node(TEXTS[0])));
    assert_eq!((row.other_node, row.numa_miss), (Some(59), Some(0)));
    let row = node_row(&frame, &topology, 1, (None, &of_node(TEXTS[1])));
    assert_eq!((row.other_node, row.cpus), (None, Some(1)));
    assert_eq!(row.memory_bytes, Some(502_644 * 1024));
    assert_eq!(row.memory_free_bytes, Some(301_180 * 1024));
    let base = VMSTAT_TEXT
        .replace("faults 9000", "faults 8000")
        .replace("local 6000", "local 5750");
    let row = host_row(&frame, &topology, (&of_host(&base), &of_host(VMSTAT_TEXT)));
    assert_eq!(
        (row.hint_faults, row.hint_faults_local, row.pages_migrated),
        (Some(1000), Some(250), Some(0))
    );
    assert_eq!(row.hint_faults_remote_share, Some(0.75));
    // A kernel without balancing, and nodes read from the directory itself.
    let row = host_row(&frame, &topology, (&of_host(""), &of_host("")));
    assert!(row.hint_faults.is_none() && row.reason.is_some());
    let mut host = HostNuma::new(&topology);
    assert_eq!(host.window(&frame, &topology)[0].rows(), 2);
}

#[test]
fn one_node_is_unavailable_not_nought() {
    let dir = tempfile::tempdir().unwrap();
    let topology = Topology::of(dir.path().into());
    let frame = Frame { ts: 1, host: "h" };
    let now = of_host(VMSTAT_TEXT);
    let row = host_row(&frame, &topology, (&now, &now));
    assert_eq!((row.hint_faults, row.pages_migrated), (None, None));
    assert_eq!(row.reason.as_deref(), Some(crate::sampler::numa::ONE_NODE));
    let now = of_node(TEXTS[0]);
    let row = node_row(&frame, &topology, 0, (Some(&now), &now));
    assert_eq!((row.other_node, row.numa_hit), (None, None));
}

#[test]
fn modes_of_balancing() {
    let modes = ["0\n", "1", "2", "3"].map(|m| balancing(m).unwrap());
    assert_eq!(modes, ["off", "on", "tiering", "tiering"]);
    assert_eq!(balancing(""), None);
}

use super::*;

const HYBRID: &str = "24 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb
32 25 0:28 / /sys/fs/cgroup/unified rw,relatime shared:11 - cgroup2 cgroup2 rw,nsdelegate
33 25 0:28 /other /mnt/part rw - cgroup2 cgroup2 rw
";

// Linux 6.1, two nodes.
const V2: &str = "anon N0=1073741824 N1=2147483648
file N0=99999744 N1=0
kernel_stack N0=16384 N1=16384
shmem N0=4096 N1=8192
file_mapped N0=0 N1=0
anon_thp N0=1073741824 N1=0
inactive_anon N0=1 N1=1
";
const V1: &str = "total=300 N0=100 N1=200
file=30 N0=10 N1=20
anon=270 N0=90 N1=180
unevictable=0 N0=0 N1=0
hierarchical_total=305 N0=101 N1=204
hierarchical_file=30 N0=10 N1=20
hierarchical_anon=270 N0=90 N1=180
hierarchical_unevictable=5 N0=1 N1=4
";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn mounts() {
    let mounts = Mounts::parse(HYBRID);
    let path = |name: &str| Some(PathBuf::from("/sys/fs/cgroup").join(name));
    assert_eq!(mounts.memory, path("memory"));
    assert_eq!(mounts.hugetlb, path("hugetlb"));
    assert_eq!(mounts.unified, path("unified"));
    assert_eq!(Mounts::parse(""), Mounts::default());
}

#[test]
fn both_versions_give_bytes_of_guest_memory() {
    let sums = v2(V2).unwrap();
    assert_eq!(sums, [(0, (1 << 30) + 4096), (1, (2 << 30) + 8192)].into());
    let page = rustix::param::page_size() as u64;
    assert_eq!(v1(V1).unwrap(), [(0, 91 * page), (1, 184 * page)].into());
    assert_eq!(v2(""), None);
}

#[test]
fn the_domain_above_a_threaded_cgroup() {
    let dir = tempfile::tempdir().unwrap();
    let (proc, root) = (dir.path().join("proc"), dir.path().join("cgroup"));
    let scope = "machine.slice/machine-qemu.scope/libvirt";
    write(&root, &format!("{scope}/memory.numa_stat"), V2);
    write(
        &root,
        &format!("{scope}/hugetlb.2MB.numa_stat"),
        "total=6291456 N0=2097152 N1=4194304\n",
    );
    write(
        &root,
        &format!("{scope}/hugetlb.1GB.numa_stat"),
        "total=0 N0=0 N1=0\n",
    );
    write(&root, &format!("{scope}/cgroup.procs"), "70\n71\n72\n");
    write(&root, &format!("{scope}/emulator/cgroup.threads"), "70\n");
    write(&root, "machine.slice/memory.numa_stat", V2);
    write(&root, "machine.slice/cgroup.procs", "");
    write(&proc, "71/comm", "swtpm\n");
    write(&proc, "72/comm", "vhost-70\n");
    let mounts = Mounts {
        unified: Some(root.clone()),
        ..Mounts::default()
    };
    let line = format!("1:name=systemd:/x\n0::/{scope}/emulator\n");
    let told = mounts.read(&proc, 70, &line).unwrap();
    assert_eq!(told.memory[&0], (1 << 30) + 4096);
    assert_eq!(told.huge, Some([(0, 2 << 20), (1, 4 << 20)].into()));
    // Another VM or a shell beside it: not its own.
    for other in ["qemu-system-x86_64", "bash"] {
        write(&proc, "71/comm", other);
        assert_eq!(mounts.read(&proc, 70, &line), None, "{other}");
    }
    // The slice above holds it only together with others.
    assert_eq!(mounts.read(&proc, 70, "0::/machine.slice/gone\n"), None);
    assert_eq!(mounts.read(&proc, 70, "0::/\n"), None);
}

#[test]
fn version_one_takes_its_own_paths() {
    let dir = tempfile::tempdir().unwrap();
    let (proc, root) = (dir.path().join("proc"), dir.path().join("memory"));
    write(&root, "qemu/100/memory.numa_stat", V1);
    write(&root, "qemu/100/cgroup.procs", "70\n");
    let mounts = Mounts {
        memory: Some(root),
        ..Mounts::default()
    };
    let lines = "9:cpu,cpuacct:/other\n4:memory:/qemu/100\n0::/\n";
    let told = mounts.read(&proc, 70, lines).unwrap();
    assert_eq!((told.memory.len(), told.huge), (2, None));
}

/// The kernel's own file, in a cgroup made for the test where that is allowed.
#[test]
fn a_cgroup_of_this_kernel() {
    let mounts = Mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap());
    let (Some(root), name) = (
        &mounts.memory,
        format!("headroom-test-{}", std::process::id()),
    ) else {
        println!("skip: no cgroup v1 memory hierarchy");
        return;
    };
    let dir = root.join(&name);
    if std::fs::create_dir(&dir).is_err() {
        println!("skip: no cgroup can be made here");
        return;
    }
    // A process that waits for its input to end.
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let moved = std::fs::write(dir.join("cgroup.procs"), pid.to_string());
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let told = mounts.read(Path::new("/proc"), pid, &cgroup);
    drop(child.stdin.take());
    child.wait().unwrap();
    std::fs::remove_dir(&dir).unwrap();
    moved.unwrap();
    assert!(told.is_some(), "{cgroup}");
}

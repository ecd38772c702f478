use super::*;
use crate::discover::fake::{self, FakeProc};

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

fn vm(pid: u32) -> Vm {
    fake::vm(pid, Vec::new())
}

/// A VM in process 70, with hierarchies of these kinds below `cg`.
fn host(cgroup: &str, kinds: &[(&str, &str)]) -> FakeProc {
    let proc = FakeProc::new();
    let point = proc.path().join("cg");
    let mounts = kinds.iter().map(|(kind, name)| {
        format!(
            "41 31 0:38 / {}/{name} rw - {kind} {kind} rw,{name}\n",
            point.display()
        )
    });
    proc.write("self/mountinfo", &mounts.collect::<String>());
    proc.write("70/cgroup", cgroup);
    proc
}

fn told(proc: &FakeProc) -> Option<CgroupMemory> {
    read(&Cgroups::new(proc.path().into()), &vm(70))
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
    let scope = "machine.slice/machine-qemu.scope";
    let cgroup = format!("1:name=systemd:/x\n0::/{scope}/libvirt/emulator\n");
    let proc = host(&cgroup, &[("cgroup2", "all")]);
    let write = |path: &str, text: &str| proc.write(&format!("cg/all/{scope}/{path}"), text);
    write("memory.numa_stat", V2);
    write("cgroup.procs", "");
    write(
        "hugetlb.2MB.numa_stat",
        "total=6291456 N0=2097152 N1=4194304\n",
    );
    write("hugetlb.1GB.numa_stat", "total=0 N0=0 N1=0\n");
    write("libvirt/cgroup.procs", "70\n");
    write("libvirt/emulator/cgroup.threads", "70\n");
    let told = told(&proc).unwrap();
    assert_eq!(told.memory[&0], (1 << 30) + 4096);
    assert_eq!(told.huge, Some([(0, 2 << 20), (1, 4 << 20)].into()));
}

#[test]
fn version_one_takes_its_own_paths() {
    let cgroup = "9:cpu,cpuacct:/other\n5:hugetlb:/huge/100\n4:memory:/qemu/100\n0::/\n";
    let proc = host(cgroup, &[("cgroup", "memory"), ("cgroup", "hugetlb")]);
    proc.write("cg/memory/qemu/100/memory.numa_stat", V1);
    proc.write("cg/memory/qemu/100/cgroup.procs", "70\n");
    let without = told(&proc).unwrap();
    assert_eq!((without.memory.len(), without.huge), (2, None));
    proc.write("cg/hugetlb/huge/100/cgroup.procs", "70\n");
    proc.write(
        "cg/hugetlb/huge/100/hugetlb.2MB.numa_stat",
        "total=0 N0=0 N1=0\nhierarchical_total=2097152 N0=0 N1=2097152\n",
    );
    let huge = told(&proc).unwrap().huge;
    assert_eq!(huge, Some([(0, 0), (1, 2 << 20)].into()));
    // One that is not its own tells nothing.
    proc.write("cg/hugetlb/huge/100/cgroup.procs", "70\n71\n");
    assert_eq!(told(&proc).unwrap().huge, None);
}

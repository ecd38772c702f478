use std::fs;

use super::*;

/// A `/proc` and a cgroup hierarchy of our own making.
struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn process(&self, pid: u32, comm: &str, parent: u32, cgroup: &str) {
        self.write(
            &format!("proc/{pid}/stat"),
            &format!("{pid} ({comm}) S {parent} 0 0"),
        );
        self.write(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
        self.write(&format!("proc/{pid}/cgroup"), cgroup);
    }

    fn mounts(&self, kinds: &[&str]) -> Mounts {
        let root = self.0.path().display();
        let lines = kinds.iter().map(|kind| match *kind {
            "v2" => format!(
                "41 31 0:38 / {root}/v2 rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
            ),
            _ => format!("35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory\n"),
        });
        Mounts::parse(&lines.collect::<String>())
    }

    fn own(&self, mounts: &Mounts, pid: u32) -> Own {
        mounts.own(&self.0.path().join("proc"), pid, &HashSet::from([pid, 77]))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
}

const SCOPE: &str = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope";

/// As libvirt makes it on a host with version 2: threads in groups below the
/// scope, the limits on the scope.
fn libvirt(fake: &Fake) {
    fake.process(
        100,
        "qemu-system-x86",
        1,
        &format!("0::{SCOPE}/libvirt/emulator\n"),
    );
    fake.write(&format!("v2{SCOPE}/memory.current"), "1\n");
    fake.write(&format!("v2{SCOPE}/cgroup.procs"), "");
    fake.write(&format!("v2{SCOPE}/libvirt/cgroup.procs"), "100\n");
    fake.write(&format!("v2{SCOPE}/libvirt/vcpu0/cgroup.threads"), "101\n");
    fake.write("v2/machine.slice/memory.current", "1\n");
}

#[test]
fn libvirts_scope_is_the_vms() {
    let fake = Fake::new();
    libvirt(&fake);
    let mounts = fake.mounts(&["v2"]);
    let scope = fake.path(&format!("v2{SCOPE}"));
    let own = fake.own(&mounts, 100);
    assert_eq!(own.memory, Some((scope.clone(), Version::V2)));
    assert_eq!(
        (own.name.as_deref(), own.pressure),
        (Some(SCOPE), Some(scope))
    );
    // Its helpers, its children and its kernel thread do not change that.
    fake.process(200, "swtpm", 1, "");
    fake.process(300, "odd (name) 1", 100, "");
    fake.process(400, "vhost-100", 2, "");
    fake.process(77, "vhost-nonsense", 2, "");
    fake.process(450, "kvm-nx-lpage-recovery-100", 2, "");
    fake.write(
        &format!("v2{SCOPE}/cgroup.procs"),
        "200\n300\n400\n450\n77\n",
    );
    assert!(fake.own(&mounts, 100).memory.is_some());
    // Another VM's kernel thread and a stranger do.
    fake.process(500, "vhost-999", 2, "");
    fake.write(&format!("v2{SCOPE}/cgroup.procs"), "500\n");
    assert_eq!(fake.own(&mounts, 100), Own::default());
    fake.process(600, "postgres", 1, "");
    fake.write(&format!("v2{SCOPE}/cgroup.procs"), "");
    fake.write(&format!("v2{SCOPE}/libvirt/vcpu0/cgroup.procs"), "600\n");
    assert_eq!(fake.own(&mounts, 100), Own::default());
}

#[test]
fn the_root_and_shared_groups_are_nobodys() {
    let fake = Fake::new();
    let mounts = fake.mounts(&["v2"]);
    fake.process(100, "qemu-system-x86", 50, "0::/\n");
    fake.write("v2/cgroup.procs", "100\n");
    fake.write("v2/memory.current", "1\n");
    assert_eq!(fake.own(&mounts, 100), Own::default());
    // A session: its shell is the VM's parent, not its child.
    fake.process(
        100,
        "qemu-system-x86",
        50,
        "0::/user.slice/session-1.scope\n",
    );
    fake.process(50, "bash", 1, "");
    fake.write("v2/user.slice/session-1.scope/cgroup.procs", "50\n100\n");
    fake.write("v2/user.slice/session-1.scope/memory.current", "1\n");
    assert_eq!(fake.own(&mounts, 100), Own::default());
    // A group that the agent's mount does not show.
    fake.process(100, "qemu-system-x86", 50, "0::/../other\n");
    assert_eq!(fake.own(&mounts, 100), Own::default());
    assert_eq!(fake.own(&mounts, 999), Own::default(), "no such process");
}

#[test]
fn a_mixed_setup_has_memory_in_one_and_pressure_in_the_other() {
    let fake = Fake::new();
    let mounts = fake.mounts(&["memory", "v2"]);
    let cgroup = "4:memory:/machine/web.libvirt-qemu/emulator\n1:cpu,cpuacct:/other\n0::/\n";
    fake.process(100, "qemu-system-x86", 1, cgroup);
    fake.write("memory/machine/web.libvirt-qemu/cgroup.procs", "100\n");
    fake.write(
        "memory/machine/web.libvirt-qemu/memory.usage_in_bytes",
        "1\n",
    );
    let own = fake.own(&mounts, 100);
    let expected = fake.path("memory/machine/web.libvirt-qemu");
    assert_eq!(
        (own.memory, own.pressure),
        (Some((expected, Version::V1)), None)
    );
}

#[test]
fn groups_of_parts_are_left() {
    for (path, expected) in [
        ("/m/a.scope/libvirt/emulator", "/m/a.scope"),
        ("/m/a.scope/libvirt/vcpu12", "/m/a.scope"),
        ("/m/a.scope/libvirt", "/m/a.scope"),
        ("/libvirt/qemu/a/iothread1", "/libvirt/qemu/a"),
        ("/qemu.slice/100.scope", "/qemu.slice/100.scope"),
        ("/", "/"),
    ] {
        assert_eq!(outer(path), expected, "{path}");
    }
}

#[test]
fn a_part_of_a_hierarchy_may_be_mounted() {
    let mounts = Mounts::parse(
        "9 1 0:1 /kubepods/agent /sys/fs/cgroup ro - cgroup2 cgroup rw\n10 1 0:2 / /sys rw - sysfs sysfs rw\n",
    );
    let mount = mounts.v2.unwrap();
    assert_eq!(
        mount.place("/kubepods/agent/vm"),
        Some("/sys/fs/cgroup/vm".into())
    );
    assert_eq!(mount.place("/kubepods/other"), None);
    assert_eq!(mount.place("/kubepods/agent"), None);
    assert_eq!(mounts.v1_memory, None);
}

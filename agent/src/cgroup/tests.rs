use std::sync::Arc;

use super::*;
use crate::discover::fake::{self, FakeProc};
use crate::discover::{Role, ThreadKey, VmThread};

const SCOPE: &str = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope";

fn vm(pid: u32) -> Vm {
    // A vhost worker of a kernel before 6.4.
    fake::vm(
        pid,
        vec![VmThread {
            key: ThreadKey {
                tid: 77,
                start_ticks: 1,
            },
            pid: 77,
            role: Role::Vhost,
        }],
    )
}

/// A `/proc` and hierarchies below `v2`, `memory` and `blkio`.
struct Host(FakeProc);

impl Host {
    fn new(kinds: &[&str]) -> Self {
        let proc = FakeProc::new();
        let root = proc.path().display().to_string();
        let lines = kinds.iter().map(|kind| match *kind {
            "v2" => format!("41 31 0:38 / {root}/v2 rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"),
            v1 => format!("35 31 0:32 / {root}/{v1} rw,relatime - cgroup cgroup rw,{v1}\n"),
        });
        proc.write("self/mountinfo", &lines.collect::<String>());
        Self(proc)
    }

    fn write(&self, path: &str, text: &str) {
        self.0.write(path, text);
    }

    fn process(&self, pid: u32, comm: &str, parent: u32, cgroup: &str) {
        let stat = format!("{pid} ({comm}) S {parent} 0 0");
        self.write(&format!("{pid}/stat"), &stat);
        self.write(&format!("{pid}/comm"), &format!("{comm}\n"));
        self.write(&format!("{pid}/cgroup"), cgroup);
    }

    fn of(&self, vm: &Vm, controller: Controller) -> Vec<String> {
        let cgroups = Cgroups::new(self.0.path().into());
        let own = cgroups.own(vm, controller).into_iter();
        own.map(|group| group.path).collect()
    }

    fn own(&self, controller: Controller) -> Vec<String> {
        self.of(&vm(100), controller)
    }

    fn whole(&self, controller: Controller, file: &str) -> Option<Group> {
        Cgroups::new(self.0.path().into()).whole(&vm(100), controller, file)
    }
}

/// As libvirt makes it with version 2: threads in groups below the scope, the
/// limits on the scope.
fn libvirt() -> Host {
    let host = Host::new(&["v2"]);
    let cgroup = format!("0::{SCOPE}/libvirt/emulator\n");
    host.process(100, "qemu-system-x86", 1, &cgroup);
    host.write(&format!("v2{SCOPE}/memory.stat"), "anon 1\n");
    host.write(&format!("v2{SCOPE}/cgroup.procs"), "");
    host.write(&format!("v2{SCOPE}/libvirt/memory.stat"), "anon 1\n");
    host.write(&format!("v2{SCOPE}/libvirt/cgroup.procs"), "100\n");
    host.write(
        &format!("v2{SCOPE}/libvirt/emulator/cgroup.threads"),
        "100\n",
    );
    host.write(&format!("v2{SCOPE}/libvirt/vcpu0/cgroup.threads"), "101\n");
    host.write("v2/machine.slice/memory.stat", "anon 1\n");
    host.write("v2/machine.slice/cgroup.procs", "");
    host
}

#[test]
fn libvirts_scope_is_the_vms_as_a_whole() {
    let host = libvirt();
    let scope = host.0.path().join(format!("v2{SCOPE}"));
    let whole = Some(Group {
        dir: scope,
        path: SCOPE.to_owned(),
        version: Version::V2,
    });
    assert_eq!(host.whole(Controller::Memory, "memory.stat"), whole);
    assert_eq!(host.whole(Controller::Pressure, "cgroup.procs"), whole);
    assert_eq!(host.whole(Controller::Pressure, "memory.pressure"), None);
    // Block I/O may be accounted to the parts too, never to the slice.
    let parts = ["/libvirt/emulator", "/libvirt", ""];
    assert_eq!(
        host.own(Controller::Block),
        parts.map(|part| format!("{SCOPE}{part}"))
    );
}

#[test]
fn helpers_children_and_kernel_threads_are_the_vms() {
    let host = libvirt();
    let whole = || host.whole(Controller::Memory, "memory.stat").is_some();
    let procs = |text: &str| host.write(&format!("v2{SCOPE}/cgroup.procs"), text);
    host.process(200, "swtpm", 1, "");
    host.process(300, "odd (name) 1", 100, "");
    host.process(400, "vhost-100", 2, "");
    host.process(77, "vhost-nonsense", 2, "");
    host.process(450, "kvm-nx-lpage-recovery-100", 2, "");
    procs("200\n300\n400\n450\n77\n");
    assert!(whole());
    // Another VM, its kernel thread, a stranger, one that /proc hides and one
    // of another pid namespace are not.
    host.process(500, "vhost-999", 2, "");
    host.process(600, "postgres", 1, "");
    host.process(700, "qemu-system-x86", 1, "");
    for other in ["500\n", "600\n", "700\n", "800\n", "0\n"] {
        procs(other);
        assert!(!whole(), "{other}");
    }
    procs("");
    assert!(whole());
    host.write(&format!("v2{SCOPE}/libvirt/vcpu0/cgroup.procs"), "600\n");
    assert!(!whole(), "below");
}

#[test]
fn the_root_and_shared_groups_are_nobodys() {
    let host = Host::new(&["v2"]);
    host.process(100, "qemu-system-x86", 50, "0::/\n");
    host.write("v2/cgroup.procs", "100\n");
    assert_eq!(host.own(Controller::Memory), [""; 0]);
    // A session: its shell is the VM's parent, not its child.
    let session = "/user.slice/session-1.scope";
    host.process(100, "qemu-system-x86", 50, &format!("0::{session}\n"));
    host.process(50, "bash", 1, "");
    host.write(&format!("v2{session}/cgroup.procs"), "50\n100\n");
    assert_eq!(host.own(Controller::Memory), [""; 0]);
    // Alone in it: the slice above stays everyone's.
    host.write(&format!("v2{session}/cgroup.procs"), "100\n");
    assert_eq!(host.own(Controller::Memory), [session]);
    // A group that the agent's mount does not show, and one that is gone.
    for cgroup in ["0::/../other\n", "0::/gone (deleted)\n", ""] {
        host.process(100, "qemu-system-x86", 50, cgroup);
        assert_eq!(host.own(Controller::Memory), [""; 0], "{cgroup}");
    }
}

#[test]
fn ancestors_up_to_the_first_with_another_vm() {
    let host = Host::new(&["v2"]);
    host.process(100, "qemu-system-x86", 1, "0::/fleet/web/vmm\n");
    host.write("v2/fleet/web/vmm/cgroup.procs", "100\n");
    host.write("v2/fleet/web/cgroup.procs", "");
    host.write("v2/fleet/cgroup.procs", "");
    let all = ["/fleet/web/vmm", "/fleet/web", "/fleet"];
    assert_eq!(host.own(Controller::Block), all);
    host.process(200, "qemu-system-x86", 1, "0::/fleet/db/vmm\n");
    host.write("v2/fleet/db/vmm/cgroup.procs", "200\n");
    assert_eq!(host.own(Controller::Block), all[..2]);
    // The nearest that has the controller.
    host.write("v2/fleet/web/memory.stat", "");
    let whole = host.whole(Controller::Memory, "memory.stat");
    assert_eq!(whole.unwrap().path, "/fleet/web");
}

#[test]
fn a_process_that_is_moved_later() {
    let host = Host::new(&["v2"]);
    host.process(50, "bash", 1, "");
    host.process(100, "qemu-system-x86", 50, "0::/session\n");
    host.write("v2/session/cgroup.procs", "50\n100\n");
    assert_eq!(host.own(Controller::Memory), [""; 0]);
    host.write("100/cgroup", "0::/vms/web\n");
    // Between the two reads it is in neither.
    host.write("v2/vms/web/cgroup.procs", "");
    assert_eq!(host.own(Controller::Memory), [""; 0]);
    host.write("v2/session/cgroup.procs", "50\n");
    host.write("v2/vms/web/cgroup.procs", "100\n");
    assert_eq!(host.own(Controller::Memory), ["/vms/web", "/vms"]);
    // Somebody joins it.
    host.write("v2/vms/web/cgroup.procs", "100\n50\n");
    assert_eq!(host.own(Controller::Memory), [""; 0]);
}

#[test]
fn each_controller_of_a_mixed_setup_has_its_place() {
    let host = Host::new(&["memory", "blkio", "v2"]);
    let web = "/machine/web.libvirt-qemu";
    let cgroup = format!("5:blkio:/\n4:memory:{web}/emulator\n1:cpu,cpuacct:/other\n0::/vms/web\n");
    host.process(100, "qemu-system-x86", 1, &cgroup);
    host.write(&format!("memory{web}/emulator/cgroup.procs"), "100\n");
    host.write(&format!("memory{web}/cgroup.procs"), "");
    host.write(&format!("memory{web}/memory.stat"), "");
    host.write("v2/vms/web/cgroup.procs", "100\n");
    let whole = host.whole(Controller::Memory, "memory.stat").unwrap();
    assert_eq!((whole.path.as_str(), whole.version), (web, Version::V1));
    assert_eq!(host.own(Controller::Pressure), ["/vms/web", "/vms"]);
    assert_eq!(host.own(Controller::Block), [""; 0], "version 1, the root");
    // A VM as it is seen by the other hierarchies has no such controller.
    assert_eq!(host.own(Controller::Hugetlb), ["/vms/web", "/vms"]);
}

#[test]
fn a_pods_container_is_its_vms_and_the_pod_is_not() {
    let host = Host::new(&["v2"]);
    let container = "/kubepods.slice/kubepods-pod1.slice/cri-1.scope";
    host.process(100, "qemu-kvm", 40, &format!("0::{container}\n"));
    host.process(40, "libvirtd", 1, "");
    host.process(41, "some-sidecar", 1, "");
    host.write(&format!("v2{container}/cgroup.procs"), "40\n41\n100\n");
    assert_eq!(host.own(Controller::Block), [""; 0]);
    let mut pod = vm(100);
    let mut info = (*pod.info).clone();
    info.platform = "kubevirt";
    pod.info = Arc::new(info);
    assert_eq!(host.of(&pod, Controller::Block), [container]);
    host.process(200, "qemu-kvm", 40, "");
    host.write(&format!("v2{container}/cgroup.procs"), "40\n41\n100\n200\n");
    assert_eq!(host.of(&pod, Controller::Block), [""; 0]);
}

#[test]
fn parts_of_a_vm() {
    for (path, part) in [
        ("/m/a.scope/libvirt/emulator", true),
        ("/m/a.scope/libvirt/vcpu12", true),
        ("/m/a.scope/libvirt", true),
        ("/m/a.scope", false),
        ("/libvirt/qemu/a/iothread1", true),
        ("/libvirt/qemu/a", false),
        ("/qemu.slice/100.scope", false),
    ] {
        assert_eq!(is_part(path), part, "{path}");
    }
}

/// The kernel's own files: a group made for the test where that is allowed.
#[test]
fn a_group_of_this_kernel() {
    let cgroups = Cgroups::new("/proc".into());
    let parent = files::text("/proc/self/cgroup").unwrap();
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut tried = 0;
    for controller in [Controller::Memory, Controller::Block, Controller::Pressure] {
        let Some((mount, _)) = cgroups.mounts.place(controller, &parent) else {
            continue;
        };
        let path = format!("/headroom-cgroup-{}", std::process::id());
        let dir = mount.dir(&path).unwrap_or_default();
        if std::fs::create_dir(&dir).is_err() {
            continue;
        }
        tried += 1;
        let before = cgroups.own(&vm(pid), controller);
        let moved = std::fs::write(dir.join("cgroup.procs"), pid.to_string());
        let after = cgroups.own(&vm(pid), controller);
        // Back to its parent's, so that the group can be removed.
        let root = dir.parent().unwrap().join("cgroup.procs");
        let back = std::fs::write(root, pid.to_string());
        let emptied = cgroups.own(&vm(pid), controller);
        std::fs::remove_dir(&dir).unwrap();
        moved.and(back).unwrap();
        let group = Group {
            dir,
            path,
            version: mount.version,
        };
        assert!(!before.contains(&group), "{controller:?}");
        assert_eq!(after, [group], "{controller:?}");
        assert_eq!(emptied, [], "{controller:?}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    if tried == 0 {
        headroom_tests::require::lacks("cgroup", "none can be made here");
    }
}

use std::fs;

use super::cmdline::{Vmm, parse, split, vmm};
use super::fake::FakeProc;
use super::threads::{role, vhost_owner};
use super::*;

mod reuse;

/// Splits a command line at blanks; `~` stands for a blank within an argument.
fn args(line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| word.replace('~', " "))
        .collect()
}

fn qemu(line: &str) -> VmInfo {
    parse(Vmm::Qemu, &args(line), 77)
}

const LIBVIRT: &str = "/usr/bin/qemu-system-x86_64 -name guest=web-1,debug-threads=on -S \
    -object {\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"format\":\"raw\",\"file\":\"/var/lib/libvirt/qemu/domain-3-web-1/master-key.aes\"} \
    -machine pc-q35-8.2,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel kvm -cpu host,migratable=on \
    -m size=2097152k -object {\"qom-type\":\"memory-backend-ram\",\"id\":\"pc.ram\",\"size\":2147483648} \
    -overcommit mem-lock=off -smp 2,sockets=2,cores=1,threads=1 \
    -uuid 4DEA22B3-1D52-D8F3-2516-782E98AB3FA0 -no-user-config -nodefaults";

const OPENSTACK: &str = "/usr/bin/qemu-system-x86_64 -name guest=instance-0000001a,debug-threads=on -S \
    -object {\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"format\":\"raw\",\"file\":\"/var/lib/libvirt/qemu/domain-7-instance-0000001a/master-key.aes\"} \
    -machine pc-i440fx-6.2,usb=off -accel kvm -m 4096 -smp 4,sockets=4,dies=1,cores=1,threads=1 \
    -uuid c7a5fdbd-edaf-9455-926a-d65c16db1809 \
    -smbios type=1,manufacturer=OpenStack~Foundation,product=OpenStack~Nova,version=25.2.1,serial=c7a5fdbd,uuid=c7a5fdbd-edaf-9455-926a-d65c16db1809,family=Virtual~Machine";

const PROXMOX: &str = "/usr/bin/kvm -id 104 -name db-main,debug-threads=on -no-shutdown \
    -chardev socket,id=qmp,path=/var/run/qemu-server/104.qmp,server=on,wait=off -mon chardev=qmp,mode=control \
    -pidfile /var/run/qemu-server/104.pid -daemonize -smbios type=1,uuid=5f1c4d6e-0b54-4f5f-b7a1-3b5f6c6f9a10 \
    -smp 8,sockets=1,cores=8,maxcpus=8 -nodefaults -m 16384 -machine type=pc+pve0";

const KUBEVIRT: &str = "/usr/libexec/qemu-kvm -name guest=team-a_testvm,debug-threads=on -S \
    -object {\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"file\":\"/var/run/kubevirt-private/libvirt/qemu/lib/domain-1-team-a_testvm/master-key.aes\"} \
    -machine pc-q35-rhel9.2.0,usb=off -accel kvm -m size=1048576k -smp 1,maxcpus=4,sockets=4 \
    -uuid 5a9fc181-957e-5c32-9e5a-2de5e9673531 \
    -smbios type=1,manufacturer=KubeVirt,product=None,uuid=5a9fc181-957e-5c32-9e5a-2de5e9673531,family=KubeVirt";

#[test]
fn libvirt() {
    let info = qemu(LIBVIRT);
    assert_eq!((info.name.as_str(), info.platform), ("web-1", "libvirt"));
    assert_eq!(
        info.uuid.as_deref(),
        Some("4dea22b3-1d52-d8f3-2516-782e98ab3fa0")
    );
    assert_eq!((info.memory_bytes, info.vcpus), (Some(2 << 30), Some(2)));
    assert_eq!(info.machine.as_deref(), Some("pc-q35-8.2"));
}

#[test]
fn openstack() {
    let info = qemu(OPENSTACK);
    assert_eq!(
        (info.name.as_str(), info.platform),
        ("instance-0000001a", "openstack")
    );
    assert_eq!((info.memory_bytes, info.vcpus), (Some(4 << 30), Some(4)));
    // Without the product the default name template tells.
    assert_eq!(
        qemu("qemu-system-x86_64 -name guest=instance-000000ff,debug-threads=on").platform,
        "openstack"
    );
    assert_eq!(
        qemu("qemu-system-x86_64 -name instance-one").platform,
        "qemu"
    );
}

#[test]
fn proxmox() {
    let info = qemu(PROXMOX);
    assert_eq!((info.name.as_str(), info.platform), ("db-main", "proxmox"));
    assert_eq!(
        info.uuid.as_deref(),
        Some("5f1c4d6e-0b54-4f5f-b7a1-3b5f6c6f9a10")
    );
    assert_eq!((info.memory_bytes, info.vcpus), (Some(16 << 30), Some(8)));
    assert_eq!(info.machine.as_deref(), Some("pc+pve0"));
}

#[test]
fn kubevirt() {
    let info = qemu(KUBEVIRT);
    assert_eq!(
        (info.name.as_str(), info.platform),
        ("team-a_testvm", "kubevirt")
    );
    assert_eq!((info.memory_bytes, info.vcpus), (Some(1 << 30), Some(1)));
}

#[test]
fn plain_qemu() {
    let info = qemu("qemu-system-x86_64 --enable-kvm -name x,process=y -m 2G -smp cpus=3 -M q35");
    assert_eq!(
        (info.name.as_str(), info.platform, info.uuid),
        ("x", "qemu", None)
    );
    assert_eq!(
        (info.memory_bytes, info.vcpus, info.machine.as_deref()),
        (Some(2 << 30), Some(3), Some("q35"))
    );
    let info = qemu(
        "qemu-system-x86_64 -uuid 00000000-0000-0000-0000-000000000000 -m nonsense -smp x -name",
    );
    assert_eq!(
        (info.name.as_str(), info.uuid, info.memory_bytes, info.vcpus),
        ("qemu-77", None, None, None)
    );
    assert_eq!(qemu("kvm -name debug-threads=on").name, "qemu-77");
}

#[test]
fn other_vmms() {
    let fc = parse(
        Vmm::Firecracker,
        &args("/usr/bin/firecracker --id vm-9 --api-sock /run/fc.sock"),
        5,
    );
    assert_eq!((fc.name.as_str(), fc.platform), ("vm-9", "firecracker"));
    let line = "cloud-hypervisor --cpus boot=2,max=4 --memory size=512M --platform uuid=5a9fc181-957e-5c32-9e5a-2de5e9673531";
    let ch = parse(Vmm::CloudHypervisor, &args(line), 5);
    assert_eq!(
        (ch.name.as_str(), ch.memory_bytes, ch.vcpus),
        ("cloud-hypervisor-5", Some(512 << 20), Some(2))
    );
    assert!(ch.uuid.is_some());
}

#[test]
fn programs() {
    for qemu in [
        "/usr/bin/qemu-system-x86_64",
        "/usr/libexec/qemu-kvm",
        "kvm",
        "/usr/bin/qemu-system-x86_64 (deleted)",
    ] {
        assert_eq!(vmm(qemu), Some(Vmm::Qemu), "{qemu}");
    }
    for other in [
        "qemu-img",
        "/usr/sbin/qemu-ga",
        "qemu-nbd",
        "qemu-aarch64-static",
        "libvirtd",
        "/bin/kvm-clock",
        "",
    ] {
        assert_eq!(vmm(other), None, "{other}");
    }
    assert_eq!(split(b"a\0b c\0\0"), ["a", "b c", ""]);
    assert!(split(b"").is_empty());
}

#[test]
fn thread_names() {
    for (name, expected) in [
        ("CPU 0/KVM", Role::Vcpu(0)),
        ("CPU 127/KVM", Role::Vcpu(127)),
        ("CPU 3/TCG", Role::Vcpu(3)),
        ("ALL CPUs/TCG", Role::Vcpu(0)),
        ("IO io1", Role::IoThread),
        ("IO iothread1", Role::IoThread),
        ("vhost-4711", Role::Vhost),
        // Traps.
        ("IO mon_iothread", Role::Emulator),
        ("kvm-nx-lpage-re", Role::Emulator),
        ("kvm-pit/4711", Role::Emulator),
        ("call_rcu", Role::Emulator),
        ("worker", Role::Emulator),
        ("qemu-system-x86", Role::Emulator),
        ("CPU x/KVM", Role::Emulator),
        ("CPU /KVM", Role::Emulator),
        ("CPU 1/KVM2", Role::Emulator),
        ("vhost-", Role::Emulator),
    ] {
        assert_eq!(role(Vmm::Qemu, name), expected, "{name}");
    }
    assert_eq!(role(Vmm::Firecracker, "fc_vcpu 2"), Role::Vcpu(2));
    assert_eq!(role(Vmm::Firecracker, "fc_api"), Role::Emulator);
    assert_eq!(role(Vmm::CloudHypervisor, "vcpu11"), Role::Vcpu(11));
    assert_eq!(role(Vmm::CloudHypervisor, "_disk0_q0"), Role::IoThread);
    assert_eq!(vhost_owner("vhost-12"), Some(12));
}

const UUID: &str = "5a9fc181-957e-5c32-9e5a-2de5e9673531";

fn roles(vm: &Vm) -> Vec<(u32, Role)> {
    vm.threads.iter().map(|t| (t.key.tid, t.role)).collect()
}

#[test]
fn a_vm_with_all_its_threads() {
    let fake = FakeProc::new();
    fake.process(1, "systemd", 1, "/sbin/init");
    fake.process(
        50,
        "qemu-system-x86",
        100,
        &format!("qemu-system-x86_64 -name guest=a,debug-threads=on -uuid {UUID}"),
    );
    fake.thread(50, 51, "CPU 0/KVM", 101);
    fake.thread(50, 52, "CPU 1/KVM", 101);
    fake.thread(50, 53, "IO io1", 101);
    fake.thread(50, 54, "IO mon_iothread", 101);
    fake.thread(50, 55, "kvm-nx-lpage-re", 101);
    fake.task("60", "vhost-50", 102, 0x0020_8040);
    fake.write("60/cmdline", "");
    fake.task("61", "vhost-999", 102, 0x0020_8040);
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    let vms = discovery.scan();
    assert_eq!(vms.len(), 1);
    assert_eq!(
        (vms[0].id.as_str(), vms[0].key.pid, vms[0].key.start_ticks),
        (UUID, 50, 100)
    );
    use Role::{Emulator, IoThread, Vcpu, Vhost};
    assert_eq!(
        roles(&vms[0]),
        [
            (51, Vcpu(0)),
            (52, Vcpu(1)),
            (53, IoThread),
            (60, Vhost),
            (50, Emulator),
            (54, Emulator),
            (55, Emulator)
        ]
    );
    // Hotplug and unplug.
    fake.thread(50, 56, "CPU 2/KVM", 300);
    fake.remove("50/task/52");
    let vms = discovery.scan();
    assert_eq!(roles(&vms[0])[..2], [(51, Vcpu(0)), (56, Vcpu(2))]);
    fake.remove("50");
    assert!(discovery.scan().is_empty());
}

#[test]
fn fork_then_exec_is_noticed() {
    let fake = FakeProc::new();
    fake.process(50, "libvirtd", 100, "/usr/sbin/libvirtd");
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    assert!(discovery.scan().is_empty());
    // Same pid, same start, same directory: only the program is another.
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=a",
    );
    fake.thread(50, 51, "CPU 0/KVM", 101);
    assert_eq!(discovery.scan().len(), 1);
}

#[test]
fn a_wrapper_script_of_the_same_name_is_noticed() {
    let fake = FakeProc::new();
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "/bin/sh /usr/local/bin/qemu-system-x86_64 -name guest=a",
    );
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    assert!(discovery.scan().is_empty());
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "/usr/bin/qemu-system-x86_64 -name guest=a",
    );
    fake.thread(50, 51, "CPU 0/KVM", 101);
    assert_eq!(discovery.scan().len(), 1);
}

#[test]
fn a_reused_pid_is_another_vm() {
    let fake = FakeProc::new();
    let start = |ticks, name: &str| {
        fake.process(
            50,
            "qemu-system-x86",
            ticks,
            &format!("qemu-system-x86_64 -name guest={name}"),
        );
        fake.thread(50, 51, "CPU 0/KVM", ticks);
    };
    start(100, "a");
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    let first = discovery.scan();
    fake.remove("50");
    // Something else takes the old inode, so that the new process gets another.
    fake.write("keep/x", "");
    start(200, "b");
    let second = discovery.scan();
    assert_eq!(
        (first[0].id.as_str(), second[0].id.as_str()),
        ("a@0a1b2c3d.100.50", "b@0a1b2c3d.200.50")
    );
    assert_ne!(first[0].key, second[0].key);
    assert_ne!(first[0].threads[0].key, second[0].threads[0].key);
}

#[test]
fn a_changed_inode_alone_is_no_other_vm() {
    let fake = FakeProc::new();
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=a",
    );
    fake.thread(50, 51, "CPU 0/KVM", 101);
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    let first = discovery.scan();
    // The kernel reclaimed its directory entries: new inodes, same process.
    fs::rename(fake.path().join("50"), fake.path().join("old")).unwrap();
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=a",
    );
    fake.thread(50, 51, "CPU 0/KVM", 101);
    let second = discovery.scan();
    assert_eq!(first[0].key, second[0].key);
    assert_eq!(first[0].threads, second[0].threads);
}

#[test]
fn two_processes_of_one_uuid_do_not_mix() {
    let fake = FakeProc::new();
    for (pid, start) in [(50, 100), (40, 900)] {
        fake.process(
            pid,
            "qemu-system-x86",
            start,
            &format!("qemu-system-x86_64 -name guest=a -uuid {UUID}"),
        );
        fake.thread(pid, pid + 1, "CPU 0/KVM", start);
    }
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    let vms = discovery.scan();
    assert_eq!((vms[0].key.pid, vms[0].id.as_str()), (50, UUID));
    assert_eq!(
        (vms[1].key.pid, vms[1].id.clone()),
        (40, format!("{UUID}@0a1b2c3d.900.40"))
    );
    // The source of the migration is gone: the target goes on as the VM.
    fake.remove("50");
    let vms = discovery.scan();
    assert_eq!(
        (vms.len(), vms[0].key.pid, vms[0].id.as_str()),
        (1, 40, UUID)
    );
}

#[test]
fn processes_without_vcpus_are_no_vms() {
    let fake = FakeProc::new();
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -machine none,accel=kvm:tcg -daemonize",
    );
    fake.process(51, "qemu-img", 100, "qemu-img convert a b");
    fake.process(
        52,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=old",
    );
    for tid in 53..56 {
        fake.thread(52, tid, "qemu-system-x86", 100);
    }
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    let named: Vec<String> = (0..20)
        .flat_map(|_| {
            assert!(discovery.scan().is_empty());
            discovery.take_nameless()
        })
        .collect();
    // Said once.
    assert_eq!(named, ["old"]);
}

#[test]
fn a_thread_is_named_after_its_start() {
    let fake = FakeProc::new();
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=a",
    );
    fake.thread(50, 51, "CPU 0/KVM", 101);
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    fake.thread(50, 52, "qemu-system-x86", 102);
    assert_eq!(roles(&discovery.scan()[0])[0], (51, Role::Vcpu(0)));
    fake.thread(50, 52, "CPU 1/KVM", 102);
    assert_eq!(roles(&discovery.scan()[0])[1], (52, Role::Vcpu(1)));
}

#[test]
fn kvm_tells_threads_without_names() {
    let fake = FakeProc::new();
    fake.process(
        50,
        "qemu-system-x86",
        100,
        "qemu-system-x86_64 -name guest=old",
    );
    for tid in 51..54 {
        fake.thread(50, tid, "qemu-system-x86", 100);
    }
    fake.process(70, "myvmm", 200, "/opt/myvmm --run");
    fake.write("kvm/50-11/vcpu0/pid", "52\n");
    fake.write("kvm/50-11/vcpu1/pid", "0\n");
    fake.write("kvm/70-4/vcpu0/pid", "70\n");
    fake.write("kvm/exits", "0\n");
    let mut discovery = Discovery::new(fake.path().into(), fake.path().join("kvm"));
    let vms = discovery.scan();
    assert_eq!(roles(&vms[0])[0], (52, Role::Vcpu(0)));
    assert_eq!(
        (vms[1].info.name.as_str(), vms[1].info.platform),
        ("myvmm-70", "kvm")
    );
    assert_eq!(roles(&vms[1]), [(70, Role::Vcpu(0))]);
    // The second vCPU enters its guest for the first time.
    fake.write("kvm/50-11/vcpu1/pid", "53\n");
    let vms = discovery.scan();
    assert_eq!(roles(&vms[0])[1], (53, Role::Vcpu(1)));
    let later = discovery.scan();
    assert_eq!(
        (roles(&later[0]), roles(&later[1])),
        (roles(&vms[0]), roles(&vms[1]))
    );
    assert!(discovery.take_nameless().is_empty());
}

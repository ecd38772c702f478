//! Numbers of processes and threads come back: no VM is taken for another.

use std::fs;

use super::*;

fn discovery(fake: &FakeProc) -> Discovery {
    Discovery::new(fake.path().into(), fake.path().join("kvm"))
}

fn start(fake: &FakeProc, pid: u32, ticks: u64, name: &str) {
    let cmdline = format!("qemu-system-x86_64 -name guest={name}");
    fake.process(pid, "qemu-system-x86", ticks, &cmdline);
    fake.thread(pid, pid + 1, "CPU 0/KVM", ticks);
}

/// Another process takes the number: the old directory stays somewhere, so
/// that the new one gets another inode, as in the kernel.
fn forget(fake: &FakeProc, path: &str) {
    fs::create_dir_all(fake.path().join("old")).unwrap();
    let to = fake.path().join("old").join(path.replace('/', "."));
    fs::rename(fake.path().join(path), to).unwrap();
}

#[test]
fn a_pid_reused_within_one_tick() {
    let fake = FakeProc::new();
    start(&fake, 50, 100, "a");
    let mut discovery = discovery(&fake);
    assert_eq!(discovery.scan()[0].info.name, "a");
    forget(&fake, "50");
    start(&fake, 50, 100, "b");
    // Their keys are equal, so a scan without any keeps them apart.
    assert!(discovery.scan().is_empty());
    let vms = discovery.scan();
    assert_eq!(
        (vms[0].info.name.as_str(), vms[0].id.as_str()),
        ("b", "b@0a1b2c3d.100.50")
    );
}

#[test]
fn another_vm_executed_in_the_process() {
    let fake = FakeProc::new();
    start(&fake, 50, 100, "a");
    let mut discovery = discovery(&fake);
    assert_eq!(discovery.scan()[0].info.name, "a");
    // Same pid, start and inode: execution ends all threads but the first.
    forget(&fake, "50/task/51");
    let cmdline = "qemu-system-x86_64 -name guest=b";
    fake.process(50, "qemu-system-x86", 100, cmdline);
    fake.thread(50, 61, "CPU 0/KVM", 200);
    assert!(discovery.scan().is_empty());
    let later: Vec<_> = (0..2).flat_map(|_| discovery.scan()).collect();
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].info.name, "b");
}

#[test]
fn a_vm_goes_on_when_its_vmm_executes_itself() {
    let fake = FakeProc::new();
    start(&fake, 50, 100, "a");
    let mut discovery = discovery(&fake);
    let before = discovery.scan();
    forget(&fake, "50/task/51");
    fake.thread(50, 61, "CPU 0/KVM", 200);
    assert!(discovery.scan().is_empty());
    let after = discovery.scan();
    assert_eq!(
        (&after[0].id, &after[0].key),
        (&before[0].id, &before[0].key)
    );
    assert_eq!(roles(&after[0])[0], (61, Role::Vcpu(0)));
}

#[test]
fn a_thread_id_reused_within_the_vm() {
    let fake = FakeProc::new();
    start(&fake, 50, 100, "a");
    fake.thread(50, 52, "CPU 1/KVM", 100);
    let mut discovery = discovery(&fake);
    let first = discovery.scan();
    forget(&fake, "50/task/52");
    fake.thread(50, 52, "IO io1", 300);
    let second = discovery.scan();
    assert_eq!(roles(&second[0])[1], (52, Role::IoThread));
    assert_ne!(first[0].threads[1].key, second[0].threads[1].key);
}

#[test]
fn namesakes_started_in_one_tick() {
    let fake = FakeProc::new();
    start(&fake, 50, 100, "a");
    start(&fake, 60, 100, "a");
    let mut discovery = discovery(&fake);
    let both: Vec<String> = discovery.scan().into_iter().map(|vm| vm.id).collect();
    assert_eq!(both, ["a@0a1b2c3d.100.50", "a@0a1b2c3d.100.60"]);
    // The one that is left does not become the other.
    forget(&fake, "50");
    assert_eq!(discovery.scan()[0].id, both[1]);
}

#[test]
fn a_vhost_worker_of_a_former_process() {
    let fake = FakeProc::new();
    start(&fake, 50, 100, "a");
    // Left by the process that had the number before.
    fake.task("70", "vhost-50", 99, 0x0020_8040);
    fake.write("70/cmdline", "");
    // Named after the thread that became its owner.
    fake.task("71", "vhost-51", 120, 0x0020_8040);
    fake.write("71/cmdline", "");
    let vms = discovery(&fake).scan();
    let vhosts: Vec<u32> = vms[0]
        .threads
        .iter()
        .filter(|t| t.role == Role::Vhost)
        .map(|t| t.key.tid)
        .collect();
    assert_eq!(vhosts, [71]);
}

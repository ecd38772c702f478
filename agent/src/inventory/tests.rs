use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::discover::cmdline::{Vmm, parse};

const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

const FILE: &str = r#"
[defaults]
region = "eu-north-1"
tenant = "house"
labels = { rack = "r12" }

[[vm]]
glob = "web-*"
tenant = "acme"
project = "shop"
priority = 10

[[vm]]
glob = "*"
qos_class = "burstable"
vm_type = "small"

[[vm]]
name = "web-1"
vm_type = "m5.large"
labels = { team = "payments", tier = 1 }

[[vm]]
uuid = "4DEA22B3-1D52-D8F3-2516-782E98AB3FA0"
tenant = "other"
"#;

fn more(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn entries_from_the_most_to_the_least_particular() {
    let rules = Rules::parse(FILE).unwrap();
    let web = rules.of(None, "web-1");
    assert_eq!(
        web,
        Labels {
            tenant: some("acme"),
            project: some("shop"),
            vm_type: some("m5.large"),
            region: None,
            priority: some("10"),
            qos_class: some("burstable"),
            more: more(&[("team", "payments"), ("tier", "1")]),
        }
    );
    assert_eq!(
        web.more_json().as_deref(),
        Some(r#"{"team":"payments","tier":"1"}"#)
    );
    assert_eq!(rules.of(Some(UUID), "web-1").tenant, some("other"));
    assert_eq!(rules.of(None, "db").vm_type, some("small"));
    assert_eq!(rules.defaults().region, some("eu-north-1"));
    assert_eq!(Labels::default().more_json(), None);
}

#[test]
fn a_broken_file_names_its_line_and_the_remedy() {
    for (text, line, word) in [
        ("[defaults]\nregion = \n", 2, ""),
        ("\n[[vm]]\nname = \"a\"\ntenat = \"x\"\n", 4, "tenat"),
        (
            "[[vm]]\nname = \"a\"\ntenant = [1]\n",
            3,
            "a text, a number",
        ),
        ("[[vm]]\nname = \"a\"\ntenant = \"\"\n", 3, "empty"),
        ("[defaults]\n\n[[vm]]\ntenant = \"x\"\n", 3, "which VM"),
        ("[[vm]]\nname = \"a\"\nuuid = \"b\"\n", 1, "which VM"),
        (
            "[[vm]]\nname = \"a\"\n[[vm]]\nname = \"a\"\n",
            3,
            "an entry already",
        ),
        ("[vms]\n", 1, "vms"),
    ] {
        let error = Rules::parse(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        assert!(error.contains(word) && error.contains("; "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_that_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.toml");
    // Replaced as configuration is: another inode, so no tick of the clock is
    // needed to tell the states apart.
    let write = |text: &str| {
        fs::write(dir.path().join("new"), text).unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
    };
    let mut file = LabelsFile::new(path.clone());
    let broken = |file: &mut LabelsFile| match file.poll() {
        Poll::Broken(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(broken(&mut file).contains("cannot be read"));
    assert!(matches!(file.poll(), Poll::Same));
    write(FILE);
    assert!(matches!(file.poll(), Poll::Loaded));
    assert!(matches!(file.poll(), Poll::Same));
    let keep = fs::File::open(&path).unwrap();
    write("[defaults\n");
    assert!(broken(&mut file).contains("line 1: "));
    assert!(matches!(file.poll(), Poll::Same));
    // The last good rules stay, also when the file goes.
    fs::remove_file(&path).unwrap();
    assert!(broken(&mut file).contains("cannot be read"));
    assert_eq!(file.rules().of(None, "web-1").tenant, some("acme"));
    drop(keep);
    write(&format!("# {}\n", " ".repeat(4 << 20)));
    assert!(broken(&mut file).contains("4 MiB"));
    write("");
    assert!(matches!(file.poll(), Poll::Loaded));
    assert_eq!(*file.rules(), Rules::default());
}

fn group(path: &str, platform: Option<&'static str>) -> (Option<String>, Option<&'static str>) {
    (some(path), platform)
}

#[test]
fn groups_of_libvirt() {
    let v2 =
        "0::/machine.slice/machine-qemu\\x2d7\\x2dinstance\\x2d0000001a.scope/libvirt/emulator\n";
    let g = cgroup::parse(v2);
    let path = "/machine.slice/machine-qemu\\x2d7\\x2dinstance\\x2d0000001a.scope";
    assert_eq!((g.path, g.platform), group(path, Some("libvirt")));
    assert_eq!(
        g.labels.more,
        more(&[("libvirt_machine", "instance-0000001a")])
    );
    // Version 1 with systemd: the unified tree is there and tells nothing.
    let v1 = "12:cpuset:/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator\n\
              4:memory:/machine.slice/machine-qemu\\x2d1\\x2dweb.scope\n\
              1:name=systemd:/machine.slice/machine-qemu\\x2d1\\x2dweb.scope\n0::/\n";
    let path = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope";
    let g = cgroup::parse(v1);
    assert_eq!((g.path, g.platform), group(path, Some("libvirt")));
    // Without systemd.
    let g = cgroup::parse("0::/machine/qemu-1-web-a.libvirt-qemu/vcpu0\n");
    let path = "/machine/qemu-1-web-a.libvirt-qemu";
    assert_eq!((g.path, g.platform), group(path, Some("libvirt")));
    assert_eq!(g.labels.more, more(&[("libvirt_machine", "web-a")]));
    // A name with a character beyond ASCII, and one cut within an escape.
    let g = cgroup::parse("0::/machine.slice/machine-qemu\\x2d1\\x2dw\\xc3\\xb6b.scope");
    assert_eq!(g.labels.more, more(&[("libvirt_machine", "wöb")]));
    let g = cgroup::parse("0::/machine.slice/machine-qemu\\x2d1\\x2dw\\x.scope");
    assert_eq!(g.labels.more, more(&[("libvirt_machine", "w\\x")]));
}

#[test]
fn groups_of_proxmox_and_kubernetes() {
    let g = cgroup::parse("0::/qemu.slice/104.scope\n");
    assert_eq!(
        (g.path, g.platform),
        group("/qemu.slice/104.scope", Some("proxmox"))
    );
    assert_eq!(g.labels.more, more(&[("proxmox_vmid", "104")]));

    let uid = "3f0e1d2c-4b5a-6978-8796-a5b4c3d2e1f0";
    let low = uid.replace('-', "_");
    let slice =
        format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{low}.slice");
    let pod = |path: &str| {
        let g = cgroup::parse(&format!("0::{path}\n"));
        assert_eq!(
            g.labels.more,
            more(&[("kubernetes_pod_uid", uid)]),
            "{path}"
        );
        (g.path.unwrap(), g.labels.qos_class.unwrap())
    };
    let container = format!("{slice}/cri-containerd-0a1b.scope");
    assert_eq!(
        pod(&format!("{container}/libvirt/vcpu0")),
        (container, "burstable".into())
    );
    assert_eq!(pod(&slice), (slice.clone(), "burstable".into()));
    let guaranteed = format!("/kubepods.slice/kubepods-pod{low}.slice/crio-0a1b.scope");
    assert_eq!(pod(&guaranteed).1, "guaranteed");
    let nested = format!(
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{low}.slice/cri-0.scope"
    );
    assert_eq!(pod(&nested).1, "besteffort");
    assert_eq!(
        pod(&format!("/kubepods/besteffort/pod{uid}/0a1b")).1,
        "besteffort"
    );
    assert_eq!(pod(&format!("/kubepods/pod{uid}/0a1b")).1, "guaranteed");
}

#[test]
fn groups_that_tell_nothing() {
    assert_eq!(cgroup::parse("0::/\n"), Group::default());
    assert_eq!(cgroup::parse("nonsense\n"), Group::default());
    let session = "9:name=systemd:/a\n8:pids:/b\n3:cpu,cpuacct:/c\n4:memory:/d (deleted)\n0::/\n";
    assert_eq!((cgroup::parse(session).path, None), group("/d", None));
    for path in [
        "/qemu.slice/web.scope",
        "/user.slice/104.scope",
        "/machine.slice/machine-lxc\\x2d1\\x2da.scope",
        "/system.slice/podman.service",
    ] {
        let g = cgroup::parse(&format!("0::{path}\n"));
        assert_eq!((g.path, g.platform), group(path, None));
    }
}

use super::cgroup::Group;

const NOVA: &str = "<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domstatus state='running' reason='booted' pid='8611'>
  <monitor path='/var/lib/libvirt/qemu/domain-7-instance-0000001a/monitor.sock' type='unix'/>
  <vcpus><vcpu id='0' pid='8615'/></vcpus>
  <domain type='kvm' id='7'>
    <name>instance-0000001a</name>
    <uuid>C7A5FDBD-edaf-9455-926a-d65c16db1809</uuid>
    <metadata>
      <nova:instance xmlns:nova=\"http://openstack.org/xmlns/libvirt/nova/1.1\">
        <nova:package version=\"25.2.1\"/>
        <nova:name>billing &amp; co</nova:name>
        <nova:flavor name=\"m1.large\"><nova:memory>8192</nova:memory></nova:flavor>
        <nova:owner>
          <nova:user uuid=\"96e9d2b749ea48fcb5a911e6f0e144f2\">joe</nova:user>
          <nova:project uuid=\"5a50e9d0d19746158958be0c759793fb\">acmecorp</nova:project>
        </nova:owner>
      </nova:instance>
    </metadata>
  </domain>
</domstatus>";

#[test]
fn state_files_of_libvirt() {
    let domain = libvirt::parse(NOVA).unwrap();
    assert_eq!(
        (domain.pid, domain.uuid.as_deref()),
        (Some(8611), Some("c7a5fdbd-edaf-9455-926a-d65c16db1809"))
    );
    let l = domain.labels;
    assert_eq!(
        (l.tenant, l.project, l.vm_type),
        (some("acmecorp"), some("acmecorp"), some("m1.large"))
    );
    assert_eq!(l.more["nova_name"], "billing & co");
    assert_eq!(l.more["nova_user"], "joe");
    assert_eq!(
        l.more["nova_project_id"],
        "5a50e9d0d19746158958be0c759793fb"
    );
    // An administrator's own <instance> is none of Nova's.
    let foreign = NOVA.replace("openstack.org", "example.org");
    assert_eq!(libvirt::parse(&foreign).unwrap().labels, Labels::default());
    let kubevirt = "<domain type='kvm'><metadata><kubevirt xmlns='http://kubevirt.io'><uid>u-1</uid></kubevirt></metadata></domain>";
    assert_eq!(
        libvirt::parse(kubevirt).unwrap().labels.more,
        more(&[("kubevirt_uid", "u-1")])
    );
    for bad in [
        "",
        "<domstatus/>",
        "<network/>",
        &NOVA[..400],
        "<!DOCTYPE d [<!ENTITY a \"b\">]><domain>&a;</domain>",
    ] {
        assert_eq!(libvirt::parse(bad), None, "{bad}");
    }
}

fn args(line: &str) -> Vec<String> {
    let words = line.split_whitespace();
    words.map(|word| word.replace('~', " ")).collect()
}

#[test]
fn command_lines() {
    let of = |line: &str| {
        let args = args(line);
        of_command_line(&parse(Vmm::Qemu, &args, 7), &args)
    };
    let kubevirt = of("qemu-kvm -name guest=team-a_test_vm,debug-threads=on \
        -smbios type=1,manufacturer=KubeVirt,product=None,family=KubeVirt");
    assert_eq!(kubevirt.tenant, some("team-a"));
    assert_eq!(
        kubevirt.more,
        more(&[
            ("kubevirt_vmi", "test_vm"),
            ("smbios_family", "KubeVirt"),
            ("smbios_manufacturer", "KubeVirt")
        ])
    );
    let proxmox = of("/usr/bin/kvm -id 104 -name db,debug-threads=on \
        -pidfile /var/run/qemu-server/104.pid -smbios type=1,uuid=u,sku=big,,bad");
    assert_eq!(
        proxmox.more,
        more(&[("proxmox_vmid", "104"), ("smbios_sku", "big,bad")])
    );
    // A name that only looks like KubeVirt's, and strings that may be secret.
    let plain = of("qemu-system-x86_64 -name a_b \
        -smbios type=11,value=io.systemd.credential:token=secret");
    assert_eq!(plain, Labels::default());
}

#[test]
fn allowed_cpus_and_nodes() {
    let text =
        "Name:\tCPU 0/KVM\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3,8\nMems_allowed_list:\t0-1\n";
    assert_eq!(status::allowed(text), (some("0-3,8"), some("0-1")));
    assert_eq!(status::allowed("Name:\tx\n"), (None, None));
    let vcpu = |n, cpus: &str| (n, cpus.to_owned());
    let all = [vcpu(0, "0-7"), vcpu(1, "0-7"), vcpu(2, "3"), vcpu(4, "3")];
    assert_eq!(status::pinning(&all), some("0-1: 0-7; 2: 3; 4: 3"));
    assert_eq!(status::pinning(&[]), None);
}

/// This very process.
#[test]
fn this_process() {
    let read = |file| fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let (cpus, _) = status::allowed(&read("status"));
    assert!(crate::topology::list::parse(&cpus.unwrap()).is_some_and(|c| !c.is_empty()));
    // No VM's group, whatever it is.
    assert_eq!(cgroup::parse(&read("cgroup")).labels, Labels::default());
}

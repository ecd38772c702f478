//! Who a host task works for, by its name. Pure functions.

/// Kinds of owners, as rows name them.
pub const STORAGE: &str = "storage";
/// Switches and routers in user space.
pub const NETWORK: &str = "network";
/// What manages the host and its VMs.
pub const MANAGEMENT: &str = "management";
/// This program.
pub const AGENT: &str = "agent";
/// Any other process.
pub const USER: &str = "user";
/// Any other kernel thread.
pub const KERNEL: &str = "kernel";

/// Beginnings of process names. A name has 15 bytes at most, so a longer
/// program's is cut: `qemu-storage-da`.
const STORAGE_PROCESSES: &[&str] = &[
    "ceph-",
    "radosgw",
    "rbd-",
    "gluster",
    "qemu-storage-da",
    "qemu-nbd",
    "nbd-server",
    "spdk",
    "vhost",
    "nvmf_tgt",
    "iscsi",
    "tgtd",
    "tcmu-runner",
    "targetcli",
    "multipathd",
    "lvmetad",
    "lvmpolld",
    "dmeventd",
    "drbd",
    "linstor",
    "longhorn",
    "zed",
    "zfs",
    "virtiofsd",
    "rpc.mountd",
    "ganesha.nfsd",
    "smbd",
    "minio",
    "beegfs",
    "mfs",
    "weed",
];
const NETWORK_PROCESSES: &[&str] = &[
    "ovs-",
    "ovsdb",
    "ovn-",
    "dpdk",
    "vpp",
    "testpmd",
    "calico",
    "felix",
    "cilium",
    "flanneld",
    "frr",
    "zebra",
    "bgpd",
    "bird",
    "dnsmasq",
    "haproxy",
    "keepalived",
    "neutron-",
    "kube-proxy",
    "passt",
    "slirp4netns",
];
const MANAGEMENT_PROCESSES: &[&str] = &[
    "libvirtd",
    "virt",
    "kubelet",
    "containerd",
    "dockerd",
    "crio",
    "conmon",
    "pve",
    "pmxcfs",
    "corosync",
    "qmeventd",
    "nova-",
    "pacemaker",
    "cloud-",
    "vdsmd",
    "xl",
    "systemd",
    "dbus-",
    "polkitd",
    "rsyslogd",
    "auditd",
    "sshd",
    "cron",
    "chronyd",
    "irqbalance",
    "tuned",
    "numad",
    "node_exporter",
    "telegraf",
    "collectd",
];
const AGENT_PROCESSES: &[&str] = &["headroom"];

/// Families of kernel threads that serve disks or files.
const STORAGE_THREADS: &[&str] = &[
    // ZFS and its porting layer.
    "z_",
    "zvol",
    "txg_",
    "dp_",
    "arc_",
    "dbu_",
    "l2arc_",
    "mmp",
    "spl_",
    "spa_",
    "metaslab_",
    "dbuf_",
    "vdev_",
    // Others' data paths.
    "nfsd",
    "lockd",
    "nfs",
    "drbd",
    "iscsi",
    "rbd",
    "ceph",
    "loop",
    "nvme",
    "nvmet",
    "scsi_",
    "md",
    "raid",
    "dm-",
    "dm_",
    "dmcrypt_",
    "kcopyd",
    "bcache",
    "bch_",
    // The host's file systems.
    "jbd2",
    "xfs",
    "btrfs",
    "ext4",
    "kdmflush",
    "kblockd",
];

/// Kind and name of the owner of a process or kernel thread.
pub fn owner(comm: &str, kernel: bool) -> (&'static str, String) {
    if kernel {
        let family = family(comm);
        let kind = match begins(comm, STORAGE_THREADS) {
            true => STORAGE,
            false => KERNEL,
        };
        return (kind, family);
    }
    let kinds = [
        (AGENT, AGENT_PROCESSES),
        (STORAGE, STORAGE_PROCESSES),
        (NETWORK, NETWORK_PROCESSES),
        (MANAGEMENT, MANAGEMENT_PROCESSES),
    ];
    let kind = kinds.iter().find(|(_, names)| begins(comm, names));
    (kind.map_or(USER, |(kind, _)| kind), comm.to_owned())
}

fn begins(comm: &str, names: &[&str]) -> bool {
    names.iter().any(|name| comm.starts_with(name))
}

/// Name of a kernel thread without its CPU, device, process and number:
/// `kworker/1:0H-kblockd` is a `kworker`, `jbd2/sda1-8` a `jbd2`, `loop7` a
/// `loop`.
fn family(comm: &str) -> String {
    if let Some((head, _)) = comm.split_once(['/', ':', ' ']) {
        return head.to_owned();
    }
    // `md0_raid1` is of the family by its beginning.
    let array = comm.strip_prefix("md");
    if array.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        return "md".to_owned();
    }
    let short = comm.trim_end_matches(|c: char| c.is_ascii_digit() || "-_.".contains(c));
    if short.is_empty() { comm } else { short }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes() {
        let kind = |comm| owner(comm, false).0;
        for comm in ["ceph-osd", "ceph-mon", "glusterfsd", "qemu-storage-da"] {
            assert_eq!(kind(comm), STORAGE, "{comm}");
        }
        for comm in ["ovs-vswitchd", "ovsdb-server", "dpdk-testpmd"] {
            assert_eq!(kind(comm), NETWORK, "{comm}");
        }
        for comm in ["libvirtd", "virtqemud", "kubelet", "containerd-shim"] {
            assert_eq!(kind(comm), MANAGEMENT, "{comm}");
        }
        for comm in ["pvedaemon worke", "nova-compute"] {
            assert_eq!(kind(comm), MANAGEMENT, "{comm}");
        }
        assert_eq!(kind("headroom-agent"), AGENT);
        // A process is none of the kernel's whatever its name.
        assert_eq!(owner("kworker/0:1", false), (USER, "kworker/0:1".into()));
        assert_eq!(kind("postgres"), USER);
    }

    #[test]
    fn kernel_threads_by_family() {
        let of = |comm| owner(comm, true);
        assert_eq!(of("kworker/1:0H-kblockd"), (KERNEL, "kworker".into()));
        assert_eq!(of("kworker/u8:1-ext4-rsv-conversion").1, "kworker");
        assert_eq!(of("ksoftirqd/3"), (KERNEL, "ksoftirqd".into()));
        assert_eq!(of("kswapd0"), (KERNEL, "kswapd".into()));
        assert_eq!(of("khugepaged"), (KERNEL, "khugepaged".into()));
        assert_eq!(of("ksmd"), (KERNEL, "ksmd".into()));
        assert_eq!(of("kdamond.0"), (KERNEL, "kdamond".into()));
        assert_eq!(of("irq/24-nvme0q1"), (KERNEL, "irq".into()));
        assert_eq!(of("z_wr_iss_h"), (STORAGE, "z_wr_iss_h".into()));
        assert_eq!(of("jbd2/sda1-8"), (STORAGE, "jbd2".into()));
        assert_eq!(of("md0_raid1"), (STORAGE, "md".into()));
        assert_eq!(of("md127_raid10"), (STORAGE, "md".into()));
        assert_eq!(of("loop7"), (STORAGE, "loop".into()));
        assert_eq!(of("nfsd"), (STORAGE, "nfsd".into()));
        assert_eq!(of("drbd_w_r0"), (STORAGE, "drbd_w_r".into()));
        assert_eq!(of("0"), (KERNEL, "0".into()));
    }
}

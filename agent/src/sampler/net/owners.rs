//! Which device belongs to which VM.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::devices::{Device, Kind};
use super::nics::{self, Nics};
use crate::discover::cmdline;
use crate::files;

/// How a device was matched, for rows.
pub const NAME: &str = "name";
/// By the guest's address.
pub const MAC: &str = "mac";
/// By what the VMM has open.
pub const FDINFO: &str = "fdinfo";
/// By being alone in a network namespace.
pub const NETNS: &str = "netns";

/// What a VM's process says about its network devices.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// From its command line.
    pub nics: Nics,
    /// Names of the taps it has open, where that may be read.
    pub open: Vec<String>,
}

impl Claim {
    /// Reads the process; open files only where we may.
    pub fn read(proc: &Path, pid: u32) -> Self {
        let dir = proc.join(pid.to_string());
        let args = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        Self {
            nics: nics::parse(&cmdline::split(&args)),
            open: open_taps(&dir.join("fdinfo")),
        }
    }
}

/// Names in `iff:` lines (tun_chr_show_fdinfo, drivers/net/tun.c). Closed to
/// an agent without capabilities when the VMM has another uid or any.
fn open_taps(fdinfo: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(fdinfo).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| iff(&files::text(entry.path())?))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn iff(fdinfo: &str) -> Option<String> {
    let line = fdinfo.lines().find_map(|l| l.strip_prefix("iff:"))?;
    let name = line.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// What tells a network namespace from others without ptrace access: the
/// inode number of its `net/dev`, which the kernel makes for each anew.
pub fn namespace(proc: &Path, pid: &str) -> Option<u64> {
    let path = proc.join(pid).join("net/dev");
    Some(std::fs::metadata(path).ok()?.ino())
}

type Right<'a> = dyn Fn(&Claim) -> bool + 'a;

/// Devices of each VM (by its place in `claims`) within the agent's own
/// namespace, and how each was matched. A device that several VMs claim with
/// equal right belongs to none.
pub fn assign(
    claims: &[&Claim],
    devices: &HashMap<String, Device>,
) -> BTreeMap<usize, Vec<(String, &'static str)>> {
    let mut out: BTreeMap<usize, Vec<(String, &'static str)>> = BTreeMap::new();
    for (name, device) in devices {
        let rights: [(&'static str, &Right); 3] = [
            (NAME, &|c| c.nics.names.contains(name)),
            (FDINFO, &|c| c.open.contains(name)),
            (MAC, &|c| c.nics.macs.iter().any(|mac| is_of(device, *mac))),
        ];
        for (how, claims_it) in rights {
            let mut owners = claims.iter().enumerate().filter(|(_, c)| claims_it(c));
            if let Some((vm, _)) = owners.next() {
                if owners.next().is_none() {
                    out.entry(vm).or_default().push((name.clone(), how));
                }
                break;
            }
        }
    }
    out
}

/// libvirt gives a tap the guest's address with the first octet fe, so that a
/// bridge never takes it for its own; a macvtap has the guest's.
fn is_of(device: &Device, mac: [u8; 6]) -> bool {
    device.mac.is_some_and(|own| match device.kind {
        Kind::Tap => own[0] == 0xfe && own[1..] == mac[1..],
        Kind::Macvtap => own == mac,
    })
}

/// Devices of a VM in another namespace: those that its command line names
/// and, if it is the only VM there, all with a name of taps.
pub fn assign_foreign<'a>(
    claim: &Claim,
    names: impl Iterator<Item = &'a String>,
    alone: bool,
) -> Vec<(String, &'static str)> {
    let named: HashSet<&String> = claim.nics.names.iter().chain(&claim.open).collect();
    let tap = |name: &str| name.starts_with("tap") || name.starts_with("vnet");
    names
        .filter_map(|name| match named.contains(name) {
            true => Some((name.clone(), NAME)),
            false => (alone && tap(name)).then(|| (name.clone(), NETNS)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind, first: u8, last: u8) -> Device {
        Device {
            kind,
            ifindex: 1,
            mac: Some([first, 0x54, 0, 0, 0, last]),
        }
    }

    fn claim(names: &[&str], macs: &[u8], open: &[&str]) -> Claim {
        Claim {
            nics: Nics {
                names: names.iter().map(|n| (*n).to_owned()).collect(),
                macs: macs.iter().map(|m| [0x52, 0x54, 0, 0, 0, *m]).collect(),
            },
            open: open.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    #[test]
    fn by_name_then_open_files_then_address() {
        let devices: HashMap<String, Device> = [
            ("tap100i0".to_owned(), device(Kind::Tap, 0x12, 0xaa)),
            ("vnet0".to_owned(), device(Kind::Tap, 0xfe, 1)),
            ("vnet1".to_owned(), device(Kind::Tap, 0x52, 3)),
            ("vnet2".to_owned(), device(Kind::Tap, 0x12, 9)),
            ("macvtap0".to_owned(), device(Kind::Macvtap, 0x52, 4)),
        ]
        .into();
        let (a, b) = (
            claim(&["tap100i0"], &[1, 3], &[]),
            claim(&[], &[4], &["vnet2"]),
        );
        let mut all = assign(&[&a, &b], &devices);
        all.values_mut().for_each(|v| v.sort_unstable());
        let expected = |list: &[(&str, &'static str)]| {
            list.iter()
                .map(|(n, how)| ((*n).to_owned(), *how))
                .collect::<Vec<_>>()
        };
        // vnet1 has the guest's very address: not what libvirt makes.
        assert_eq!(all[&0], expected(&[("tap100i0", NAME), ("vnet0", MAC)]));
        assert_eq!(all[&1], expected(&[("macvtap0", MAC), ("vnet2", FDINFO)]));
    }

    #[test]
    fn two_clones_with_one_address_get_nothing() {
        let devices = [("vnet0".to_owned(), device(Kind::Tap, 0xfe, 1))].into();
        let (a, b) = (claim(&[], &[1], &[]), claim(&[], &[1], &[]));
        assert!(assign(&[&a, &b], &devices).is_empty());
        let b = claim(&["vnet0"], &[1], &[]);
        assert_eq!(assign(&[&a, &b], &devices)[&1], [("vnet0".into(), NAME)]);
    }

    #[test]
    fn another_namespace() {
        let names = ["lo", "eth0", "tap0", "k6t-eth0"].map(str::to_owned);
        let none = claim(&[], &[], &[]);
        let found = assign_foreign(&none, names.iter(), true);
        assert_eq!(found, [("tap0".to_owned(), NETNS)]);
        assert!(assign_foreign(&none, names.iter(), false).is_empty());
        let named = claim(&["k6t-eth0"], &[], &[]);
        let found = assign_foreign(&named, names.iter(), false);
        assert_eq!(found, [("k6t-eth0".to_owned(), NAME)]);
    }

    #[test]
    fn fdinfo_of_a_kernel() {
        // Linux 6.18.
        let text = "pos:\t0\nflags:\t02104002\nmnt_id:\t24\nino:\t105\niff:\thrt0\n";
        assert_eq!(iff(text).as_deref(), Some("hrt0"));
        assert_eq!(iff("pos:\t0\niff:\t\n"), None);
    }

    #[test]
    fn threads_of_one_process_share_a_namespace() {
        let own = namespace(Path::new("/proc"), "self");
        let pid = std::process::id().to_string();
        assert!(own.is_some());
        assert_eq!(own, namespace(Path::new("/proc"), &pid));
    }
}

//! What the path of a VM's control group tells. Pure functions over the text
//! of `/proc/<pid>/cgroup` (cgroups(7)), version 1, 2 or both.

use super::Labels;
use crate::cgroup::{lines, names};

/// A VM's control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its path below the mount; `None` for the root group.
    pub path: Option<String>,
    /// Who made it: `libvirt`, `proxmox` or `kubevirt`.
    pub platform: Option<&'static str>,
    /// What the path tells of the VM.
    pub labels: Labels,
}

/// The group of a process. Where controllers have trees of their own, the one
/// whose path tells most: a platform's, else version 2's, else memory's or
/// cpu's, else any.
#[must_use]
pub fn parse(text: &str) -> Group {
    // The root group tells nothing.
    let told = lines(text).filter(|(_, path)| *path != "/");
    let mut paths: Vec<(u8, &str)> = told.map(|(list, path)| (rank(list), path)).collect();
    paths.sort_by_key(|(rank, _)| *rank);
    let paths: Vec<&str> = paths.into_iter().map(|(_, path)| path).collect();
    let known = paths.iter().find_map(|path| platform(path));
    known.unwrap_or_else(|| Group {
        path: paths.first().map(|path| (*path).to_owned()),
        ..Group::default()
    })
}

fn rank(controllers: &str) -> u8 {
    match controllers {
        "" => 0,
        _ if names(controllers, "memory") => 1,
        _ if names(controllers, "cpu") => 2,
        _ => 3,
    }
}

fn platform(path: &str) -> Option<Group> {
    let parts: Vec<&str> = path.split('/').collect();
    // Below the VM's group libvirt makes others for emulator and vCPUs.
    let up_to = |last: usize| Some(parts.get(..=last)?.join("/"));
    for (i, part) in parts.iter().enumerate() {
        if let Some(name) = libvirt(part) {
            let label = ("libvirt_machine", name);
            return Some(group(up_to(i), "libvirt", None, label));
        }
        if let Some(id) = part.strip_suffix(".scope").filter(|id| is_number(id))
            && i > 0
            && parts[i - 1] == "qemu.slice"
        {
            let label = ("proxmox_vmid", id.to_owned());
            return Some(group(up_to(i), "proxmox", None, label));
        }
        if let Some(uid) = pod_uid(part)
            && path.contains("kubepods")
        {
            // The container's group, one below the pod's.
            let last = (i + 1).min(parts.len() - 1);
            let label = ("kubernetes_pod_uid", uid);
            return Some(group(up_to(last), "kubevirt", Some(qos(path)), label));
        }
    }
    None
}

fn group(
    path: Option<String>,
    platform: &'static str,
    qos_class: Option<&str>,
    label: (&str, String),
) -> Group {
    let labels = Labels {
        qos_class: qos_class.map(str::to_owned),
        more: [(label.0.to_owned(), label.1)].into(),
        ..Labels::default()
    };
    Group {
        path,
        platform: Some(platform),
        labels,
    }
}

/// Name in `machine-qemu\x2d7\x2dweb.scope`, or without systemd in
/// `qemu-7-web.libvirt-qemu`. libvirt drops characters that a host name
/// cannot have and cuts the name at 64 (`virDomainGenerateMachineName`).
fn libvirt(part: &str) -> Option<String> {
    let systemd = || part.strip_prefix("machine-")?.strip_suffix(".scope");
    let name = systemd().map(unescape);
    let name = name.or_else(|| part.strip_suffix(".libvirt-qemu").map(str::to_owned))?;
    let (id, name) = name.strip_prefix("qemu-")?.split_once('-')?;
    (is_number(id) && !name.is_empty()).then(|| name.to_owned())
}

/// Undoes systemd's `\xHH` (systemd.unit(5)).
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let byte = || {
            let hex = std::str::from_utf8(tail.strip_prefix(b"x")?.get(..2)?).ok()?;
            u8::from_str_radix(hex, 16).ok()
        };
        match (*first == b'\\').then(byte).flatten() {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// UID in `kubepods-burstable-podUID.slice`, where systemd's driver writes its
/// dashes as `_`, or in `podUID` of the other driver.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let fits = |c: char| c.is_ascii_hexdigit() || c == '-';
    // 32 digits without dashes is the UID of a static pod.
    (uid.len() >= 32 && uid.chars().all(fits)).then_some(uid)
}

/// Only the two lower classes have a level of their own.
fn qos(path: &str) -> &'static str {
    let below = |class: &str| {
        path.split('/')
            .any(|part| part == class || part.ends_with(&format!("-{class}.slice")))
    };
    match (below("burstable"), below("besteffort")) {
        (true, _) => "burstable",
        (_, true) => "besteffort",
        _ => "guaranteed",
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

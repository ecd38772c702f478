//! What the command line of a VMM says about its VM. Pure functions.

use std::collections::BTreeMap;

/// Program that runs a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU under any of its names (`qemu-system-*`, `qemu-kvm`, `kvm`).
    Qemu,
    /// Firecracker.
    Firecracker,
    /// cloud-hypervisor.
    CloudHypervisor,
    /// Another program that uses KVM.
    Other,
}

/// What is known of a VM without asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmInfo {
    /// Name as its platform gives it.
    pub name: String,
    /// UUID, lower case with dashes.
    pub uuid: Option<String>,
    /// Memory given to the guest, bytes.
    pub memory_bytes: Option<u64>,
    /// vCPUs at start by `-smp`; the threads tell the present number.
    pub vcpus: Option<u32>,
    /// Machine type, such as `pc-q35-8.2`.
    pub machine: Option<String>,
    /// `libvirt`, `proxmox`, `openstack`, `kubevirt`, `qemu`, `firecracker`,
    /// `cloud-hypervisor` or `kvm`.
    pub platform: &'static str,
}

impl VmInfo {
    /// All that is known of a VM whose program is not.
    pub(super) fn stranger(program: &str, pid: u32) -> Self {
        Self {
            name: format!("{program}-{pid}"),
            uuid: None,
            memory_bytes: None,
            vcpus: None,
            machine: None,
            platform: "kvm",
        }
    }
}

/// Which VMM a program is, from the path or name of its executable.
#[must_use]
pub fn vmm(program: &str) -> Option<Vmm> {
    let name = program.rsplit('/').next().unwrap_or(program);
    // An executable replaced by an upgrade reads "... (deleted)".
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    match name {
        "qemu-kvm" | "kvm" => Some(Vmm::Qemu),
        "firecracker" => Some(Vmm::Firecracker),
        "cloud-hypervisor" => Some(Vmm::CloudHypervisor),
        _ if name.starts_with("qemu-system-") => Some(Vmm::Qemu),
        _ => None,
    }
}

/// Splits the bytes of `/proc/P/cmdline`.
#[must_use]
pub fn split(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect()
}

/// Reads a VMM's arguments (`args[0]` is the program). `pid` names a VM that
/// nobody named.
#[must_use]
pub fn parse(vmm: Vmm, args: &[String], pid: u32) -> VmInfo {
    match vmm {
        Vmm::Qemu => qemu(args, pid),
        Vmm::Firecracker => other(args, pid, "firecracker", "--id"),
        Vmm::CloudHypervisor => other(args, pid, "cloud-hypervisor", "--platform"),
        Vmm::Other => VmInfo::stranger(args.first().map_or("kvm", String::as_str), pid),
    }
}

/// What else QEMU's arguments tell that is worth a label: the system fields of
/// SMBIOS, and Proxmox's number. OEM strings (type 11) are left alone: they
/// carry credentials.
#[must_use]
pub fn tags(args: &[String]) -> BTreeMap<String, String> {
    const FIELDS: [&str; 5] = ["manufacturer", "product", "version", "sku", "family"];
    let system = values(args, "smbios").find(|v| key(v, "type") == Some("1"));
    let fields = parts(system.unwrap_or_default()).into_iter();
    let mut tags: BTreeMap<String, String> = fields
        .filter_map(|part| {
            let (field, value) = part.split_once('=')?;
            // KubeVirt writes None for what is not set.
            let tells = FIELDS.contains(&field) && !matches!(value, "" | "None");
            tells.then(|| (format!("smbios_{field}"), value.to_owned()))
        })
        .collect();
    let vmid = values(args, "id")
        .last()
        .filter(|id| id.parse::<u32>().is_ok());
    tags.extend(vmid.map(|id| ("proxmox_vmid".to_owned(), id.to_owned())));
    tags
}

fn qemu(args: &[String], pid: u32) -> VmInfo {
    let smbios = values(args, "smbios").find(|v| key(v, "type") == Some("1"));
    let uuid = values(args, "uuid")
        .last()
        .or_else(|| smbios.and_then(|s| key(s, "uuid")));
    let name = values(args, "name").last().and_then(guest_name);
    let name = name.map_or_else(|| format!("qemu-{pid}"), str::to_owned);
    let machine = values(args, "machine").chain(values(args, "M")).last();
    VmInfo {
        platform: platform(args, smbios, &name),
        name,
        uuid: uuid.and_then(normal_uuid),
        memory_bytes: values(args, "m")
            .last()
            .and_then(|v| memory(first_or(v, "size"), 20)),
        vcpus: values(args, "smp")
            .last()
            .and_then(|v| first_or(v, "cpus").parse().ok()),
        machine: machine
            .map(|m| first_or(m, "type").to_owned())
            .filter(|m| !m.is_empty()),
    }
}

fn platform(args: &[String], smbios: Option<&str>, name: &str) -> &'static str {
    let smbios_is = |field, prefix: &str| {
        smbios
            .and_then(|s| key(s, field))
            .is_some_and(|v| v.starts_with(prefix))
    };
    let mentions = |text: &str| args.iter().any(|a| a.contains(text));
    if smbios_is("product", "OpenStack") {
        return "openstack";
    }
    if smbios_is("manufacturer", "KubeVirt")
        || smbios_is("family", "KubeVirt")
        || mentions("/var/run/kubevirt")
    {
        return "kubevirt";
    }
    if values(args, "id").next().is_some() && mentions("/var/run/qemu-server/") {
        return "proxmox";
    }
    // libvirt hides its UUIDs nowhere else: the secret object and the state
    // directory stand on every command line it writes.
    if mentions("/libvirt/qemu/") || mentions("\"id\":\"masterKey0\"") || mentions("id=masterKey0")
    {
        return "libvirt";
    }
    // Nova's default template, for a cloud that overrides the SMBIOS product.
    match name.strip_prefix("instance-") {
        Some(hex) if hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => "openstack",
        _ => "qemu",
    }
}

fn other(args: &[String], pid: u32, platform: &'static str, name_flag: &str) -> VmInfo {
    let id = flag(args, name_flag).filter(|v| !v.contains('='));
    let uuid = flag(args, "--platform").and_then(|v| key(v, "uuid"));
    VmInfo {
        name: id.map_or_else(|| format!("{platform}-{pid}"), str::to_owned),
        uuid: uuid.and_then(normal_uuid),
        memory_bytes: flag(args, "--memory").and_then(|v| memory(first_or(v, "size"), 0)),
        vcpus: flag(args, "--cpus").and_then(|v| first_or(v, "boot").parse().ok()),
        machine: None,
        platform,
    }
}

/// Values of a QEMU option, which may be written with one dash or two.
fn values<'a>(args: &'a [String], option: &'a str) -> impl Iterator<Item = &'a str> {
    args.windows(2).filter_map(move |pair| {
        let name = pair[0]
            .strip_prefix("--")
            .or_else(|| pair[0].strip_prefix('-'))?;
        (name == option).then_some(pair[1].as_str())
    })
}

/// Value of `--flag VALUE` or `--flag=VALUE`.
fn flag<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    args.iter()
        .enumerate()
        .find_map(|(i, arg)| match arg.strip_prefix(flag)? {
            "" => args.get(i + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
}

/// Value of `key` in `a=1,b=2`. QEMU writes a comma within a value twice;
/// none of the keys asked for holds one, so a doubled comma only ends a part.
fn key<'a>(list: &'a str, key: &str) -> Option<&'a str> {
    list.split(',')
        .find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// Parts of a list in which a doubled comma is one within a value.
fn parts(list: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, all.last_mut()) {
            (',', Some(part)) if chars.peek() == Some(&',') => {
                chars.next();
                part.push(',');
            }
            (',', _) => all.push(String::new()),
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    all
}

/// `key`'s value, else the first part, which needs no key.
fn first_or<'a>(list: &'a str, name: &str) -> &'a str {
    key(list, name).unwrap_or_else(|| list.split(',').next().unwrap_or(list))
}

/// Name in `-name guest=X,debug-threads=on`, `-name X` or `-name X,process=Y`.
fn guest_name(value: &str) -> Option<&str> {
    let first = value.split(',').next()?;
    let name = key(value, "guest").or_else(|| (!first.contains('=')).then_some(first))?;
    (!name.is_empty()).then_some(name)
}

/// A size such as `2048`, `2G` or `2097152k`; without suffix in units of
/// `1 << default_shift` bytes.
fn memory(text: &str, default_shift: u32) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => default_shift,
        "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
}

/// Lower case, and only if it is a UUID that names something.
fn normal_uuid(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let shape = text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    (shape && text.bytes().any(|b| !matches!(b, b'0' | b'-'))).then_some(text)
}

//! Network devices that a VMM's command line names. Pure functions.

/// Options with network devices: QEMU's, and cloud-hypervisor's `--net`.
const OPTIONS: &[&str] = &["netdev", "nic", "net", "device"];

/// What the command line says about a VM's network devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nics {
    /// Names of host devices.
    pub names: Vec<String>,
    /// Addresses that the guest sees.
    pub macs: Vec<[u8; 6]>,
}

/// Reads the arguments of a VMM.
pub fn parse(args: &[String]) -> Nics {
    let (mut nics, mut wanted) = (Nics::default(), false);
    for arg in args {
        if let Some(option) = arg.strip_prefix('-') {
            let option = option.strip_prefix('-').unwrap_or(option);
            let (option, value) = option.split_once('=').unwrap_or((option, ""));
            wanted = OPTIONS.contains(&option);
            // `--net=tap=…`
            if wanted && !value.is_empty() {
                nics.read(value);
            }
        } else if wanted {
            nics.read(arg);
        }
    }
    nics
}

impl Nics {
    fn read(&mut self, value: &str) {
        let name = ["ifname", "tap"].iter().find_map(|key| field(value, key));
        self.names
            .extend(name.filter(|n| !n.is_empty()).map(str::to_owned));
        let mac = ["mac", "macaddr"].iter().find_map(|key| field(value, key));
        self.macs.extend(mac.and_then(self::mac));
    }
}

/// A key of `a=1,b=2`, or of JSON as libvirt writes it, without escapes: names
/// of devices and addresses hold none.
fn field<'a>(value: &'a str, key: &str) -> Option<&'a str> {
    if value.starts_with('{') {
        let quoted = format!("\"{key}\"");
        let rest = &value[value.find(&quoted)? + quoted.len()..];
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        return rest.strip_prefix('"')?.split('"').next();
    }
    value
        .split(',')
        .find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// `52:54:00:12:34:56`.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.trim().split([':', '-']);
    let mut out = [0; 6];
    for byte in &mut out {
        *byte = u8::from_str_radix(bytes.next()?, 16).ok()?;
    }
    bytes.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nics(line: &str) -> Nics {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn libvirt_in_json_and_before() {
        let json = nics(
            r#"qemu -netdev {"type":"tap","fds":"31:32","vhost":true,"id":"hostnet0"} -device {"driver":"virtio-net-pci","mq":true,"netdev":"hostnet0","mac":"52:54:00:ab:cd:ef","bus":"pci.1"} -device {"driver":"virtio-blk-pci","id":"d0"}"#,
        );
        assert_eq!(json.macs, [[0x52, 0x54, 0, 0xab, 0xcd, 0xef]]);
        assert!(json.names.is_empty());
        let old = nics(
            "qemu -netdev tap,fd=31,id=hostnet0,vhost=on -device virtio-net-pci,netdev=hostnet0,id=net0,mac=52:54:00:AB:CD:EF,bus=pci.1",
        );
        assert_eq!(old.macs, json.macs);
    }

    #[test]
    fn proxmox_and_others_name_the_tap() {
        let proxmox = nics(
            "/usr/bin/kvm -id 100 -netdev type=tap,id=net0,ifname=tap100i0,script=/usr/libexec/qemu-server/pve-bridge,vhost=on,queues=4 -device virtio-net-pci,mac=BC:24:11:00:00:01,netdev=net0",
        );
        assert_eq!(proxmox.names, ["tap100i0"]);
        assert_eq!(proxmox.macs, [[0xbc, 0x24, 0x11, 0, 0, 1]]);
        let short = nics("qemu -nic tap,ifname=t0,script=no -net nic,macaddr=02:00:00:00:00:09");
        assert_eq!((short.names.len(), short.macs.len()), (1, 1));
        let cloud =
            nics("cloud-hypervisor --net tap=vm0,mac=02:00:00:00:00:01 tap=vm1 --cpus boot=2");
        assert_eq!(cloud.names, ["vm0", "vm1"]);
        assert_eq!(nics("cloud-hypervisor --net=tap=vm2").names, ["vm2"]);
    }

    #[test]
    fn other_options_name_nothing() {
        let none = nics("qemu -chardev socket,mac=02:00:00:00:00:01,ifname=x -smbios type=1 y");
        assert_eq!(none, Nics::default());
        assert_eq!(mac("52:54:00:12:34"), None);
        assert_eq!(mac("52:54:00:12:34:56:78"), None);
    }
}

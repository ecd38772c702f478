//! Network devices of a namespace and their figures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::nics;
use crate::files;

/// Which side of a link the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The host's end: what it sends, the guest receives (drivers/net/tun.c).
    Tap,
    /// The guest's own interface on another device: what it receives, the
    /// guest receives (drivers/net/macvlan.c).
    Macvtap,
}

impl Kind {
    /// As rows name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        }
    }
}

/// A tap or macvtap of the agent's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub kind: Kind,
    /// Index, never given twice while the namespace lives.
    pub ifindex: u32,
    /// Its address.
    pub mac: Option<[u8; 6]>,
}

/// Cumulative figures of a device, from the host's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received by the host.
    pub rx: Direction,
    /// Sent by the host.
    pub tx: Direction,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Errors.
    pub errors: u64,
    /// Dropped.
    pub drops: u64,
}

/// Figures of each device of a namespace, by name, from the text of
/// `/proc/<pid>/net/dev` (`dev_seq_printf_stats`, net/core/net-procfs.c).
pub fn counters(text: &str) -> HashMap<String, Counters> {
    let line = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> = figures
            .split_ascii_whitespace()
            .map_while(|f| f.parse().ok())
            .collect();
        let direction = |at: usize| {
            let figures = figures.get(at..at + 4)?;
            Some(Direction {
                bytes: figures[0],
                packets: figures[1],
                errors: figures[2],
                drops: figures[3],
            })
        };
        let counters = Counters {
            rx: direction(0)?,
            tx: direction(8)?,
        };
        Some((name.trim().to_owned(), counters))
    };
    text.lines().filter_map(line).collect()
}

/// `/sys/class/net`: devices of the namespace it was mounted in.
pub struct Devices {
    root: PathBuf,
    known: HashMap<String, (u32, Option<Device>)>,
}

impl Devices {
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            known: HashMap::new(),
        }
    }

    /// Taps and macvtaps among devices of these names.
    pub fn find<'a>(&mut self, names: impl Iterator<Item = &'a String>) -> HashMap<String, Device> {
        let before = std::mem::take(&mut self.known);
        for name in names {
            let Some(ifindex) = files::number(self.root.join(name).join("ifindex")) else {
                continue;
            };
            let known = before.get(name).filter(|(index, _)| *index == ifindex);
            let device = match known {
                // The address of a tap is set after it was made.
                Some((_, Some(device))) => Some(self.again(name, device)),
                Some((_, None)) => None,
                None => self.examine(name, ifindex),
            };
            self.known.insert(name.clone(), (ifindex, device));
        }
        let found = self.known.iter();
        found
            .filter_map(|(name, (_, device))| Some((name.clone(), device.clone()?)))
            .collect()
    }

    /// Queues towards the guest.
    pub fn queues(&self, name: &str) -> Option<u64> {
        let entries = std::fs::read_dir(self.root.join(name).join("queues")).ok()?;
        let queue = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("tx-");
        u64::try_from(entries.flatten().filter(queue).count()).ok()
    }

    fn examine(&self, name: &str, ifindex: u32) -> Option<Device> {
        let dir = self.root.join(name);
        let kind = if is_tap(&dir) {
            Kind::Tap
        } else if dir.join("macvtap").exists() {
            Kind::Macvtap
        } else {
            return None;
        };
        Some(Device {
            kind,
            ifindex,
            mac: mac(&dir),
        })
    }

    fn again(&self, name: &str, device: &Device) -> Device {
        Device {
            mac: mac(&self.root.join(name)),
            ..device.clone()
        }
    }
}

/// `IFF_TAP`, not `IFF_TUN`, of include/uapi/linux/if_tun.h.
fn is_tap(dir: &Path) -> bool {
    const IFF_TAP: u32 = 2;
    let flags = files::line(dir.join("tun_flags"));
    let flags = flags.and_then(|t| u32::from_str_radix(t.trim_start_matches("0x"), 16).ok());
    flags.is_some_and(|flags| flags & IFF_TAP != 0)
}

fn mac(dir: &Path) -> Option<[u8; 6]> {
    nics::mac(&files::line(dir.join("address"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Linux 6.18; the tap's queue was flooded.
    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 56580385  144828    0    0    0     0          0         0 56580385  144828    0    0    0     0       0          0
  hrt0:    1200      10    1    2    0     0          0         0   426090    3001    4 2001    0     0       0          0
";

    #[test]
    fn figures_of_both_directions() {
        let all = counters(DEV);
        assert_eq!(all.len(), 2);
        let tap = all["hrt0"];
        let direction = |bytes, packets, errors, drops| Direction {
            bytes,
            packets,
            errors,
            drops,
        };
        assert_eq!(tap.rx, direction(1200, 10, 1, 2));
        assert_eq!(tap.tx, direction(426_090, 3001, 4, 2001));
    }

    #[test]
    fn taps_and_macvtaps_only() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (name, index) in [("eth0", "2"), ("tap0", "5"), ("tun0", "6"), ("mv0", "7")] {
            write(&format!("{name}/ifindex"), &format!("{index}\n"));
            write(&format!("{name}/address"), "fe:54:00:00:00:01\n");
        }
        write("tap0/tun_flags", "0x1102\n");
        write("tap0/queues/tx-0/x", "");
        write("tap0/queues/tx-1/x", "");
        write("tap0/queues/rx-0/x", "");
        write("tun0/tun_flags", "0x1001\n");
        write("mv0/macvtap/tap7/dev", "");
        let names: Vec<String> = ["eth0", "tap0", "tun0", "mv0", "gone"]
            .map(str::to_owned)
            .into();
        let mut devices = Devices::new(dir.path().into());
        let found = devices.find(names.iter());
        assert_eq!(found.len(), 2);
        assert_eq!((found["tap0"].kind, found["tap0"].ifindex), (Kind::Tap, 5));
        assert_eq!(found["mv0"].kind, Kind::Macvtap);
        assert_eq!(devices.queues("tap0"), Some(2));
        // The address was changed; another device took the name.
        write("tap0/address", "fe:54:00:00:00:02\n");
        write("mv0/ifindex", "9\n");
        std::fs::remove_dir_all(dir.path().join("mv0/macvtap")).unwrap();
        let found = devices.find(names.iter());
        assert_eq!(found["tap0"].mac.unwrap()[5], 2);
        assert!(!found.contains_key("mv0"));
    }
}

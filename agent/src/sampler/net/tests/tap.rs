//! A real tap with several queues that nobody reads.

use std::ffi::c_short;
use std::fs::{File, OpenOptions};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::process::Command;

/// Gone with its files.
pub struct Tap {
    pub name: String,
    queues: Vec<File>,
    socket: Option<UdpSocket>,
}

/// Network of RFC 2544, for tests of network devices.
const HERE: &str = "198.18.77.1";
const THERE: &str = "198.18.77.2";

impl Tap {
    /// A tap of that many queues, up, with a neighbour behind it; why not,
    /// where that is not allowed or possible.
    pub fn new(queues: usize) -> Result<Self, String> {
        let name = format!("hrt{}", std::process::id());
        let queue = |_| open(&name).map_err(|e| format!("/dev/net/tun: {e}"));
        let mut tap = Self {
            queues: (0..queues).map(queue).collect::<Result<_, _>>()?,
            socket: None,
            name,
        };
        let dev = tap.name.clone();
        ip(&["link", "set", "dev", &dev, "address", "fe:54:00:11:22:33"])?;
        ip(&["link", "set", "dev", &dev, "up"])?;
        ip(&["addr", "add", &format!("{HERE}/30"), "dev", &dev])?;
        let mac = "52:54:00:11:22:33";
        ip(&["neigh", "add", THERE, "lladdr", mac, "dev", &dev])?;
        let socket = UdpSocket::bind((HERE, 0)).map_err(|e| e.to_string())?;
        tap.socket = Some(socket);
        Ok(tap)
    }

    /// Sends packets of one flow, which all go to one queue.
    pub fn flood(&self, packets: usize) {
        for _ in 0..packets {
            // What finds no room is dropped, which no sender hears of.
            let sent = self.socket.as_ref().unwrap().send_to(&[0; 64], (THERE, 9));
            sent.unwrap();
        }
    }

    /// A file of the device's statistics.
    pub fn statistic(&self, name: &str) -> u64 {
        let path = format!("/sys/class/net/{}/statistics/{name}", self.name);
        let text = std::fs::read_to_string(path).unwrap();
        text.trim().parse().unwrap()
    }

    /// Packets that wait in each ring; takes them out.
    pub fn drain(&mut self) -> Vec<usize> {
        let mut packet = [0; 2048];
        let taken = |queue: &mut File| {
            std::iter::repeat_with(|| std::io::Read::read(queue, &mut packet))
                .take_while(Result::is_ok)
                .count()
        };
        self.queues.iter_mut().map(taken).collect()
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    match Command::new("ip").args(arguments).output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        Err(error) => Err(format!("ip: {error}")),
    }
}

/// include/uapi/linux/if_tun.h and if.h.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: c_short,
    rest: [u8; 22],
}

fn open(name: &str) -> std::io::Result<File> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    // IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE.
    const FLAGS: c_short = 0x0002 | 0x1000 | 0x0100;
    let file = {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(libc::O_NONBLOCK);
        options.open("/dev/net/tun")?
    };
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: FLAGS,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request is a whole struct ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    match done {
        0 => Ok(file),
        _ => Err(std::io::Error::last_os_error()),
    }
}

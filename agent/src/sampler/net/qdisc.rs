//! Packets and drops of queueing disciplines, by rtnetlink.
//!
//! A tap with several queues has an `mq` root, below which each transmit queue
//! has a discipline with figures of its own: the only count by queue that the
//! kernel keeps for a tap. Layouts: include/uapi/linux/{netlink,rtnetlink,
//! pkt_sched,gen_stats}.h. The socket needs no privilege.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_PKT64: u16 = 8;

/// Cumulative figures of a discipline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes handed to the device.
    pub bytes: u64,
    /// Packets handed to the device, which may still drop them.
    pub packets: u64,
    /// Packets dropped before.
    pub drops: u64,
}

/// Disciplines of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qdiscs {
    /// The whole device.
    pub root: Option<Passed>,
    /// Each transmit queue from 0, below an `mq` root.
    pub queues: HashMap<u32, Passed>,
}

/// All disciplines of the agent's namespace, by device index.
pub fn read() -> std::io::Result<HashMap<u32, Qdiscs>> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // A header and an empty struct tcmsg.
    let mut request = Vec::with_capacity(36);
    request.extend(36u32.to_ne_bytes());
    request.extend(RTM_GETQDISC.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.resize(36, 0);
    send(&socket, &request, SendFlags::empty())?;
    answers(&socket)
}

fn answers(socket: &OwnedFd) -> std::io::Result<HashMap<u32, Qdiscs>> {
    let mut found = Vec::new();
    // The kernel fills 32 KiB at most for one read of a dump.
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(sorted(found)),
                NLMSG_ERROR => return Err(std::io::ErrorKind::Unsupported.into()),
                RTM_NEWQDISC => found.extend(qdisc(body)),
                _ => {}
            }
            rest = after;
        }
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Type and body of the first message, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::try_from(word(bytes, 0)?).ok()?;
    let body = bytes.get(16..len)?;
    let after = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((half(bytes, 4)?, body, after))
}

struct Qdisc {
    ifindex: u32,
    parent: u32,
    handle: u32,
    mq: bool,
    passed: Passed,
}

fn qdisc(body: &[u8]) -> Option<Qdisc> {
    let attributes = body.get(20..)?;
    let kind = attribute(attributes, TCA_KIND)?;
    let stats = attribute(attributes, TCA_STATS2)?;
    let basic = attribute(stats, TCA_STATS_BASIC)?;
    let packets = attribute(stats, TCA_STATS_PKT64).and_then(|a| long(a, 0));
    let drops = attribute(stats, TCA_STATS_QUEUE).and_then(|a| word(a, 8));
    Some(Qdisc {
        ifindex: word(body, 4)?,
        handle: word(body, 8)?,
        parent: word(body, 12)?,
        mq: kind.starts_with(b"mq\0"),
        passed: Passed {
            bytes: long(basic, 0)?,
            packets: packets.or_else(|| word(basic, 8).map(u64::from))?,
            drops: drops.map_or(0, u64::from),
        },
    })
}

fn sorted(all: Vec<Qdisc>) -> HashMap<u32, Qdiscs> {
    let mut devices: HashMap<u32, Qdiscs> = HashMap::new();
    let roots: HashMap<u32, u32> = all
        .iter()
        .filter(|q| q.parent == TC_H_ROOT && q.mq)
        .map(|q| (q.ifindex, q.handle >> 16))
        .collect();
    for q in all {
        let device = devices.entry(q.ifindex).or_default();
        if q.parent == TC_H_ROOT {
            device.root = Some(q.passed);
        } else if roots.get(&q.ifindex) == Some(&(q.parent >> 16))
            && let Some(queue) = (q.parent & 0xffff).checked_sub(1)
        {
            // Class n of mq is transmit queue n - 1.
            device.queues.insert(queue, q.passed);
        }
    }
    devices
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// `NLA_TYPE_MASK`: without the bits for nesting and byte order.
    const TYPE: u16 = 0x3fff;
    loop {
        let len = usize::from(half(bytes, 0)?);
        let body = bytes.get(4..len)?;
        if half(bytes, 2)? & TYPE == wanted {
            return Some(body);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;

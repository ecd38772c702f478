//! From readings of a device to rows.

use headroom_core::rows::VmNetRow;

use super::devices::{Direction, Kind};
use super::look::{Queue, Reading};
use crate::discover::Vm;
use crate::sampler::rows::{Frame, int};

const ELSEWHERE: &str = "the device is in another network namespace: queues cannot be told";
const NO_QDISC: &str = "the tap has no mq queueing discipline: packets by queue cannot be told";
const MACVTAP: &str = "the kernel counts no drops of a macvtap by queue";

/// What all rows of a device share.
pub struct Of<'a> {
    pub frame: &'a Frame<'a>,
    pub vm: &'a Vm,
    pub device: &'a str,
    pub matched: &'static str,
    /// Why drops by queue are unavailable.
    pub without_drops: Option<&'a str>,
}

impl Of<'_> {
    /// The device's row and one for each of its queues; none without time.
    pub fn rows(&self, base: &Reading, now: &Reading) -> Vec<VmNetRow> {
        if now.at_ns <= base.at_ns {
            return Vec::new();
        }
        let queue = |(number, queue): (&u32, &Queue)| {
            let before = base.queues.get(number).copied().unwrap_or_default();
            self.queue(&self.blank(base, now), *number, (&before, queue))
        };
        std::iter::once(self.whole(base, now))
            .chain(now.queues.iter().map(queue))
            .collect()
    }

    fn blank(&self, base: &Reading, now: &Reading) -> VmNetRow {
        VmNetRow {
            ts: self.frame.ts,
            host: self.frame.host.to_owned(),
            vm_id: self.vm.id.clone(),
            vm_name: self.vm.info.name.clone(),
            device: self.device.to_owned(),
            kind: kind(now).name().to_owned(),
            matched: self.matched.to_owned(),
            window_ns: int(now.at_ns.saturating_sub(base.at_ns)),
            queues: now.count.map(int),
            ..VmNetRow::default()
        }
    }

    fn whole(&self, base: &Reading, now: &Reading) -> VmNetRow {
        let (rx, tx) = (
            since(&base.counters.rx, &now.counters.rx),
            since(&base.counters.tx, &now.counters.tx),
        );
        // A tap is the other end of the guest's interface, a macvtap that
        // interface itself.
        let (guest_rx, guest_tx) = match kind(now) {
            Kind::Tap => (tx, rx),
            Kind::Macvtap => (rx, tx),
        };
        let tap = kind(now) == Kind::Tap;
        let qdisc = now.root.zip(base.root).filter(|_| tap);
        let reason = match &now.device {
            None => Some(ELSEWHERE),
            Some(_) if !tap => Some(MACVTAP),
            Some(_) => None,
        };
        VmNetRow {
            guest_rx_packets: Some(int(guest_rx.packets)),
            guest_rx_bytes: Some(int(guest_rx.bytes)),
            guest_rx_drops: Some(int(guest_rx.drops)),
            guest_rx_qdisc_drops: qdisc.map(|(now, then)| less(now.drops, then.drops)),
            guest_rx_errors: Some(int(guest_rx.errors)),
            guest_tx_packets: Some(int(guest_tx.packets)),
            guest_tx_bytes: Some(int(guest_tx.bytes)),
            guest_tx_drops: Some(int(guest_tx.drops)),
            guest_tx_errors: Some(int(guest_tx.errors)),
            reason: reason.map(str::to_owned),
            ..self.blank(base, now)
        }
    }

    fn queue(&self, blank: &VmNetRow, number: u32, span: (&Queue, &Queue)) -> VmNetRow {
        let (base, now) = span;
        let drops = now
            .ring_drops
            .map(|drops| less(drops, base.ring_drops.unwrap_or(0)));
        let passed = now.passed.map(|now| (now, base.passed.unwrap_or_default()));
        let packets = passed.map(|(now, then)| less(now.packets, then.packets));
        let reason = match (passed, drops) {
            (_, None) => self.without_drops,
            (None, _) => Some(NO_QDISC),
            _ => None,
        };
        VmNetRow {
            queue: Some(i64::from(number)),
            // A packet may be counted by one and not yet by the other.
            guest_rx_packets: packets.zip(drops).map(|(p, d)| (p - d).max(0)),
            guest_rx_bytes: passed.map(|(now, then)| less(now.bytes, then.bytes)),
            guest_rx_drops: drops,
            guest_rx_qdisc_drops: passed.map(|(now, then)| less(now.drops, then.drops)),
            reason: reason.map(str::to_owned),
            ..blank.clone()
        }
    }
}

fn kind(reading: &Reading) -> Kind {
    reading.device.as_ref().map_or(Kind::Tap, |d| d.kind)
}

fn less(now: u64, then: u64) -> i64 {
    int(now.saturating_sub(then))
}

fn since(base: &Direction, now: &Direction) -> Direction {
    Direction {
        bytes: now.bytes.saturating_sub(base.bytes),
        packets: now.packets.saturating_sub(base.packets),
        errors: now.errors.saturating_sub(base.errors),
        drops: now.drops.saturating_sub(base.drops),
    }
}

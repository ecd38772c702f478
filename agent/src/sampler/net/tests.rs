mod tap;

use headroom_core::rows::VmNetRow;

use super::devices::{Counters, Device, Direction, Kind};
use super::look::Queue;
use super::qdisc::Passed;
use super::*;
use crate::discover::Vm;
use crate::discover::fake;
use crate::probe::{AttachPolicy, ProbeOptions, Probes};
use tap::Tap;

const FRAME: Frame<'static> = Frame { ts: 1, host: "h" };

fn vm(pid: u32) -> Vm {
    fake::vm(pid, Vec::new())
}

fn of(vm: &Vm) -> rows::Of<'_> {
    rows::Of {
        frame: &FRAME,
        vm,
        device: "tap0",
        matched: owners::NAME,
        without_drops: Some("no probe"),
    }
}

fn reading(kind: Kind, at_ns: u64, scale: u64) -> Reading {
    let direction = |n: u64| Direction {
        bytes: n * 100,
        packets: n,
        errors: 0,
        drops: n / 10,
    };
    Reading {
        at_ns,
        device: Some(Device {
            kind,
            ifindex: 5,
            mac: None,
        }),
        counters: Counters {
            rx: direction(10 * scale),
            tx: direction(70 * scale),
        },
        ..Reading::default()
    }
}

#[test]
fn directions_are_the_guests() {
    let vm = vm(7);
    let row = |kind| {
        let rows = of(&vm).rows(&reading(kind, 10, 1), &reading(kind, 30, 2));
        assert_eq!(rows.len(), 1);
        rows[0].clone()
    };
    let tap = row(Kind::Tap);
    assert_eq!(
        (tap.guest_rx_packets, tap.guest_rx_drops),
        (Some(70), Some(7))
    );
    assert_eq!(
        (tap.guest_tx_packets, tap.guest_tx_bytes),
        (Some(10), Some(1000))
    );
    assert_eq!((tap.window_ns, tap.reason), (20, None));
    let macvtap = row(Kind::Macvtap);
    assert_eq!(
        (macvtap.guest_rx_packets, macvtap.guest_tx_packets),
        (Some(10), Some(70))
    );
    assert!(macvtap.reason.is_some());
}

#[test]
fn queues_with_and_without_their_sources() {
    let passed = |packets| {
        Some(Passed {
            bytes: packets * 100,
            packets,
            drops: 0,
        })
    };
    let queue = |passed, ring_drops| Queue { passed, ring_drops };
    let mut base = reading(Kind::Tap, 10, 1);
    let mut now = reading(Kind::Tap, 30, 2);
    base.queues = [(0, queue(passed(5), Some(1))), (1, Queue::default())].into();
    now.queues = [
        (0, queue(passed(35), Some(11))),
        (1, queue(passed(3), None)),
    ]
    .into();
    let vm = vm(7);
    let rows = of(&vm).rows(&base, &now);
    let told = |r: &VmNetRow| (r.queue, r.guest_rx_packets, r.guest_rx_drops);
    assert_eq!(told(&rows[1]), (Some(0), Some(20), Some(10)));
    assert_eq!(rows[1].reason, None);
    assert_eq!(told(&rows[2]), (Some(1), None, None));
    assert_eq!(rows[2].reason.as_deref(), Some("no probe"));
    assert_eq!(rows[2].guest_tx_packets, None);
    assert!(of(&vm).rows(&now, &now).is_empty(), "no time has passed");
}

#[test]
fn a_device_that_took_the_name_of_another_starts_anew() {
    let (old, mut new) = (reading(Kind::Tap, 10, 2), reading(Kind::Tap, 20, 3));
    assert!(new.continues(&old));
    new.device.as_mut().unwrap().ifindex = 6;
    assert!(!new.continues(&old));
    let mut foreign = reading(Kind::Tap, 20, 1);
    foreign.device = None;
    let before = Reading {
        device: None,
        ..old
    };
    assert!(!foreign.continues(&before));
}

/// The mission's own check: one queue of four is flooded.
#[test]
fn drops_of_a_flooded_queue_and_of_no_other() {
    // One after the other: both taps have the same addresses.
    for attach in [AttachPolicy::TpBtf, AttachPolicy::RawTp] {
        a_flooded_queue(attach);
    }
}

fn a_flooded_queue(attach: AttachPolicy) {
    let skip = |reason: String| headroom_tests::require::lacks("bpf", reason);
    let mut tap = match Tap::new(4) {
        Ok(tap) => tap,
        Err(reason) => return skip(reason),
    };
    let options = ProbeOptions {
        slots: 1,
        vms: 1,
        attach,
    };
    // They live as long as the test: the program is attached with them.
    let mut probes = match Probes::attach(&options) {
        Ok(probes) => probes,
        Err(error) => return skip(crate::sampler::chain(&error)),
    };
    let drops = match probes.take_net() {
        Ok(drops) => drops,
        Err(reason) => return skip(reason),
    };
    assert_eq!(
        probes.take_net().err().as_deref(),
        Some("handed out before")
    );
    let mut net = Net::new("/proc".into(), Ok(drops));
    // This process has the tap open: that is how it is matched.
    let vm = vm(std::process::id());
    let scene = Scene {
        vms: vec![SceneVm {
            vm: &vm,
            index: None,
            live: true,
        }],
    };
    net.tick(&scene);
    let link = &net.vms[&vm.key].links[&tap.name];
    assert_eq!((link.matched, link.now.count), (owners::FDINFO, Some(4)));
    tap.drain();
    let before = tap.statistic("tx_dropped");
    net.window(&FRAME, &scene);
    // A ring holds 500 packets here or 1000, the length of the device's queue.
    tap.flood(3000);
    // As the agent does, without capabilities.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::privilege::drop_all().unwrap();
            net.look(&scene);
        });
    });
    let link = &net.vms[&vm.key].links[&tap.name];
    let of = rows::Of {
        device: &tap.name,
        ..of(&vm)
    };
    let rows = of.rows(&link.base, &link.now);
    let dropped = tap.statistic("tx_dropped") - before;
    check(&rows, dropped, &tap.drain());
    assert_eq!(net.looker.lost_drops(), Some(0));
    // A device that is gone gives its places in the kernel's table back.
    drop(tap);
    net.look(&scene);
    assert!(
        net.looker
            .look(&[vm.key.pid])
            .reading(vm.key.pid, "lo")
            .is_none()
    );
}

/// Rows of a device of which `dropped` packets were dropped and so many
/// delivered by each queue.
fn check(rows: &[VmNetRow], dropped: u64, delivered: &[usize]) {
    println!("{dropped} packets dropped, delivered {delivered:?}");
    assert!(dropped > 0);
    assert_eq!(
        rows[0].guest_rx_drops,
        Some(i64::try_from(dropped).unwrap())
    );
    let hit: Vec<&VmNetRow> = rows[1..]
        .iter()
        .filter(|r| r.guest_rx_drops != Some(0))
        .collect();
    assert_eq!((rows.len(), hit.len()), (5, 1), "{rows:?}");
    assert_eq!(hit[0].guest_rx_drops, rows[0].guest_rx_drops);
    let (flooded, taken) = delivered
        .iter()
        .enumerate()
        .max_by_key(|(_, n)| **n)
        .unwrap();
    assert_eq!(hit[0].queue, i64::try_from(flooded).ok());
    let (packets, taken) = (
        hit[0].guest_rx_packets.unwrap(),
        i64::try_from(*taken).unwrap(),
    );
    // The kernel's own packets (router solicitations) come in between.
    assert!((packets - taken).abs() < 20, "{packets} of {taken}");
}

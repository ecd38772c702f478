//! No room: in a queue of a tap, and for huge pages.

use headroom_vmlab::message::{Flood, Fragmented};
use headroom_vmlab::{Run, Scenario, Series};
use serde_json::Value;

use super::rows::{int, only, total};

/// What a tap's ring holds, and a little.
const HELD: u64 = 1100;
/// Packets that the kernel sends by itself, such as those of IPv6.
const FEW: i64 = 50;
/// An event's time against the kernel's, on a busy machine.
const SLACK_US: i64 = 1_500_000;

/// Packets of one flow find no room in one queue: its drops are that queue's,
/// and no other's.
pub fn tap(series: Series) {
    let Some(report) = crate::run(series, Scenario::Scarce) else {
        return;
    };
    let run = only(&report);
    let truth: Flood = report.truth("flood").unwrap();
    println!("{truth:?}");
    let (flooded, sent) = truth.sent.iter().max_by_key(|(_, sent)| **sent).unwrap();
    assert!(truth.dropped > 1000, "{truth:?}");
    assert!(*sent > truth.dropped && *sent < truth.dropped + HELD);
    for (queue, sent) in &truth.sent {
        assert!(queue == flooded || *sent < 50, "a second flood: {truth:?}");
    }
    let rows: Vec<_> = run.rows("vm_nets").collect();
    assert!(!rows.is_empty());
    for row in &rows {
        assert_eq!(row["vm_name"], "vm1");
        assert_eq!(row["device"], truth.device.as_str());
        assert_eq!(row["kind"], "tap");
        assert_eq!(row["queues"], truth.queues);
    }
    let of = |queue: Value| rows.iter().filter(move |r| r["queue"] == queue);
    let dropped = i64::try_from(truth.dropped).unwrap();
    let whole: Vec<_> = of(Value::Null).copied().collect();
    assert_eq!(total(&whole, "guest_rx_drops"), dropped);
    for queue in 0..u64::from(truth.queues) {
        let rows: Vec<_> = of(queue.into()).copied().collect();
        let told = total(&rows, "guest_rx_drops");
        let packets = total(&rows, "guest_rx_packets");
        println!("queue {queue}: {told} dropped, {packets} taken");
        if queue == *flooded {
            let taken = i64::try_from(*sent).unwrap() - dropped;
            assert_eq!(told, dropped);
            assert!((taken..taken + FEW).contains(&packets), "{packets}");
        } else {
            assert!(told == 0 && packets < FEW, "{told} and {packets}");
        }
    }
    let lost: Vec<_> = run.rows("host_nets").collect();
    assert_eq!(total(&lost, "tap_drops_lost"), 0);
}

/// Memory in pieces: the host's counts rise as the kernel's do, and the time is
/// the VM's that wanted huge pages.
pub fn fragments(series: Series) {
    let Some(report) = crate::run(series, Scenario::Scarce) else {
        return;
    };
    let run = only(&report);
    let truth: Fragmented = report.truth("fragmented").unwrap();
    println!("{} compactions, {:?}", truth.compactions, truth.pressure);
    let host: Vec<_> = run.rows("host_memory").collect();
    for name in ["compact_stall", "thp_fault_fallback"] {
        let (told, truth) = (total(&host, name), truth.vmstat[name]);
        println!("{name} {told}, truth {truth}");
        // Some of it may come about before and after.
        assert!(truth > 0 && told >= truth, "{name} {told} of {truth}");
        assert!(told <= truth * 11 / 10 + 10, "{name} {told} of {truth}");
    }
    stalls(run, &truth);
    let events = run.rows("events");
    let stalled: Vec<_> = events
        .filter(|r| r["kind"] == "memory_compaction_stall")
        .filter(|r| r["subject"].as_str().is_some_and(|s| s.starts_with("vm/")))
        .collect();
    println!("{stalled:?}");
    assert_eq!(stalled.len(), 1);
    let (begin, end) = truth.span_us;
    let at = int(stalled[0], "ts");
    assert!((begin - SLACK_US..=end + SLACK_US).contains(&at));
}

fn stalls(run: &Run, truth: &Fragmented) {
    let of = |vm: &'static str| {
        let rows = run.rows("vm_memory").filter(move |r| r["vm_name"] == vm);
        let rows: Vec<_> = rows.collect();
        let stalls = rows.iter().map(|r| int(&r["compaction_hist"], "total"));
        let stalls = stalls.sum::<i64>();
        (
            stalls,
            total(&rows, "compaction_ns"),
            total(&rows, "reclaim_ns"),
        )
    };
    let (stalls, compaction_ns, reclaim_ns) = of("vm2");
    let some = truth.pressure.get("some total").copied().unwrap_or(0) * 1000;
    println!(
        "vm2: {stalls} stalls of {compaction_ns} ns, reclaim {reclaim_ns} ns, pressure {some} ns"
    );
    assert_eq!(stalls, i64::try_from(truth.compactions).unwrap());
    assert!(compaction_ns > 0);
    // The kernel's own account of the same stalls. Reclaim goes on outside of
    // the recording too, so it has no place here.
    assert!(compaction_ns <= some * 2, "{some}");
    let host: Vec<_> = run.rows("host_memory").collect();
    assert!(total(&host, "compaction_ns") >= compaction_ns);
    assert_eq!(of("vm1").0, 0, "the other VM wanted nothing");
}

//! Memory pressure on a VM: reclaim, swap and the OOM killer, in that order.

use headroom_vmlab::message::{Phase, Squeeze};
use headroom_vmlab::{Run, Scenario, Series};

use super::rows::{int, only, total};

/// Between the agent's readings of two clocks, on a busy machine.
const SLACK_US: i64 = 200_000;

pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Memory) else {
        return;
    };
    let run = only(&report);
    let truth: Squeeze = report.truth("squeeze").unwrap();
    let names: Vec<_> = truth.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["reclaim", "swap", "oom"]);
    let event = |p: &Phase, name: &str| p.events.get(name).copied().unwrap_or(0);
    let stat = |p: &Phase, name: &str| p.stat.get(name).copied().unwrap_or(0);
    let vmstat = |p: &Phase, name: &str| p.vmstat.get(name).copied().unwrap_or(0);
    let [reclaim, swap, oom] = &truth.phases[..] else {
        unreachable!()
    };
    for p in [reclaim, swap] {
        assert!(event(p, "high") > 0 && !p.killed, "{p:?}");
        assert!(stat(p, "pgsteal_direct") > 0, "{p:?}");
        assert!(p.pressure.get("some total").copied() > Some(0), "{p:?}");
        assert_eq!(event(p, "oom_kill"), 0);
    }
    assert_eq!(vmstat(reclaim, "pswpout"), 0, "{reclaim:?}");
    assert!(vmstat(swap, "pswpout") > 0, "{swap:?}");
    assert!(vmstat(swap, "pswpin") > 0, "{swap:?}");
    assert!(oom.killed && event(oom, "oom_kill") == 1, "{oom:?}");
    // The agent saw the VM live and die.
    let of_vm = |kind: &str| run.rows("events").filter(|r| r["kind"] == kind).count();
    assert_eq!((of_vm("vm_started"), of_vm("vm_stopped")), (1, 1));
    ladder(run, &truth.phases);
    amounts(run, &truth.phases);
}

/// Each step of the VM is an event, at its time and so in this order.
fn ladder(run: &Run, phases: &[Phase]) {
    let mut events: Vec<_> = run
        .rows("events")
        .filter(|r| r["kind"].as_str().is_some_and(|k| k.starts_with("memory_")))
        .filter(|r| r["subject"].as_str().is_some_and(|s| s.starts_with("vm/")))
        .collect();
    events.sort_by_key(|r| int(r, "ts"));
    println!("{events:#?}");
    let first = |kind: &str| {
        let found = events.iter().find(|r| r["kind"] == kind);
        int(found.unwrap_or_else(|| panic!("no {kind}")), "ts")
    };
    let kinds = ["memory_reclaim", "memory_swap", "memory_oom_kill"];
    let at = kinds.map(first);
    assert!(at[0] < at[1] && at[1] < at[2], "{kinds:?} at {at:?}");
    for (us, phase) in at.into_iter().zip(phases) {
        let (begin, end) = phase.span_us;
        // The probes tell when; files would tell it at the next tick.
        let within = begin - SLACK_US..=end + SLACK_US;
        assert!(within.contains(&us), "{us} not in {phase:?}");
    }
    let kills = events.iter().filter(|r| r["kind"] == kinds[2]).count();
    assert_eq!(kills, 1);
}

/// The rows add up to what the cgroup counted.
fn amounts(run: &Run, phases: &[Phase]) {
    let rows: Vec<_> = run.rows("vm_memory").collect();
    assert!(
        rows.iter()
            .all(|r| r["vm_name"] == "vm1" && r["source"] == "tp_btf")
    );
    let near = |column: &str, of: fn(&Phase) -> Option<&i64>, unit: i64| {
        let truth: i64 = phases.iter().filter_map(of).sum::<i64>() * unit;
        let told = total(&rows, column);
        println!("{column} {told}, truth {truth}");
        // Some of it may come about between the phases.
        assert!(
            truth > 0 && told * 100 >= truth * 95 && told * 100 <= truth * 110,
            "{column} {told}, truth {truth}"
        );
        truth
    };
    let high = near("high_hits", |p| p.events.get("high"), 1);
    near("limit_hits", |p| p.events.get("max"), 1);
    near("oom_kills", |p| p.events.get("oom_kill"), 1);
    near("direct_stolen", |p| p.stat.get("pgsteal_direct"), 1);
    let psi = near("psi_memory_some_ns", |p| p.pressure.get("some total"), 1000);
    near("psi_memory_full_ns", |p| p.pressure.get("full total"), 1000);
    // Waits for pages from swap are pressure and no reclaim; reclaim that
    // another task interrupts is reclaim and, meanwhile, no pressure.
    let reclaim = total(&rows, "reclaim_ns");
    println!("reclaim {reclaim} ns, pressure {psi} ns");
    assert!(reclaim > psi / 2 && reclaim < psi * 2, "{reclaim} of {psi}");
    let stalls: i64 = rows.iter().map(|r| int(&r["reclaim_hist"], "total")).sum();
    assert!(
        stalls >= high * 9 / 10,
        "{stalls} stalls, {high} times too high"
    );
}

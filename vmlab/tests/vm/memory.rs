//! Memory pressure on a VM: reclaim, swap and the OOM killer, in that order.

use headroom_vmlab::message::{Phase, Squeeze};
use headroom_vmlab::{Scenario, Series};

use super::rows::only;

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
}

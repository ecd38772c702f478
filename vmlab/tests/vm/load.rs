//! Every family of probes attaches with each kind of program.

use headroom_vmlab::{Scenario, Series};

use super::rows::{ended_well, families};

pub fn check(series: Series) {
    let Some(report) = crate::run(series, Scenario::Load) else {
        return;
    };
    let names: Vec<_> = report.runs.iter().map(|run| run.name()).collect();
    assert_eq!(names, ["tp_btf", "raw_tp"]);
    for run in &report.runs {
        ended_well(run);
        let attached = format!("attached {}", run.name());
        assert!(run.said().contains(&attached), "{:?}", run.said());
        families(run, run.name(), 2);
        for table in ["hosts", "vms", "vcpus"] {
            let rows: Vec<_> = run.rows(table).collect();
            assert!(rows.len() >= 2, "{} rows of {table}", rows.len());
            assert!(rows.iter().all(|r| r["source"] == run.name()), "{rows:?}");
        }
        let hosts: Vec<_> = run.rows("hosts").collect();
        assert!(hosts.iter().all(|r| r["kernel"] == report.kernel));
        assert!(run.rows("vcpus").all(|r| r["vm_name"] == "vm1"));
        // A state of half load: it ran, and it slept.
        let last = run.rows("vcpus").last().unwrap();
        assert!(last["run_ns"].as_i64() > Some(0), "{last}");
        assert!(last["switches"].as_i64() > Some(0), "{last}");
        assert!(run.rows("events").all(|r| r["kind"] != "agent_degraded"));
    }
}

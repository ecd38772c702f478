use super::*;

#[test]
fn no_samples_is_an_error() {
    let options = ProbesOptions {
        samples: 0,
        ..ProbesOptions::default()
    };
    assert!(matches!(probes(&options), Err(BenchError::NoSamples)));
}

#[test]
fn a_short_run_gives_whole_figures() {
    let options = ProbesOptions {
        samples: 4,
        ..ProbesOptions::default()
    };
    match probes(&options) {
        Ok(report) => {
            for ratio in [
                report.unregistered_ratio,
                report.registered_ratio,
                report.floor_ratio,
            ] {
                assert!(ratio > 0.0 && ratio.is_finite(), "{report:?}");
            }
            assert!(
                report.ns_per_switch > 0.0 && report.ns_per_wakeup > 0.0,
                "{report:?}"
            );
            assert_eq!(report.samples, 4);
            let out = |what: &str| report.left_out.iter().any(|out| out.what == what);
            assert_eq!(report.runqlat_ratio.is_none(), out("runqlat"));
            assert_eq!(report.biolatency_ratio.is_none(), out("biolatency"));
            assert_eq!(report.bpftrace_ratio.is_none(), out("bpftrace"));
            assert_eq!(report.block_ratio.is_none(), out("reads of a disk"));
            assert!(report.read_us.slot > 0.0, "{report:?}");
            let ran = |hook: &str| report.programs.iter().any(|p| p.hook == hook && p.runs > 0);
            assert!(
                report.programs.iter().all(|p| p.family != "none"),
                "{report:?}"
            );
            assert!(ran("sched_switch") && ran("sched_waking"), "{report:?}");
        }
        Err(BenchError::Probes(error)) => {
            headroom_tests::require::lacks("bpf", error);
        }
        Err(error) => panic!("{error}"),
    }
}

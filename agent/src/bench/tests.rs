use std::io::{self, Write as _};

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
            assert_eq!(report.runqlat_ratio.is_some(), options.runqlat.exists());
        }
        Err(BenchError::Probes(error)) => {
            let required = std::env::var("HEADROOM_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|r| r == "bpf"),
                "bpf is required: {error}"
            );
            let _ = writeln!(io::stderr(), "skip: {error}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_peer_that_attaches_nothing_is_an_error() {
    let gone = Runqlat::start(std::path::Path::new("/bin/true")).err();
    assert!(matches!(gone, Some(BenchError::Runqlat { .. })), "{gone:?}");
}

//! The agent in real kernels against truths of these kernels. Each scenario boots
//! a machine, one at a time, for 10 to 50 s; tests of one scenario share its run.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, their helpers too"
)]

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use headroom_vmlab::{Lab, Report, Scenario, Series};

mod vm {
    pub mod block;
    pub mod host;
    pub mod inventory;
    pub mod load;
    pub mod memory;
    pub mod nested;
    pub mod noisy;
    pub mod numa;
    pub mod quota;
    pub mod remote;
    pub mod rows;
    pub mod scarce;
}

macro_rules! tests_on {
    ($module:ident, $series:expr) => {
        mod $module {
            use headroom_vmlab::{Scenario, Series};

            use crate::vm;

            const KERNEL: Series = $series;

            #[test]
            fn every_family_attaches_in_both_kinds() {
                vm::load::check(KERNEL);
            }

            #[test]
            fn ready_of_nested_guests_is_that_of_schedstat() {
                vm::nested::check(KERNEL);
            }

            #[test]
            fn the_run_queues_are_as_deep_as_schedstat_says() {
                vm::host::depth(KERNEL);
            }

            #[test]
            fn switches_are_those_of_proc_status() {
                vm::host::switches(KERNEL);
            }

            #[test]
            fn each_ns_of_a_cpu_has_one_owner() {
                vm::host::capacity(KERNEL);
            }

            #[test]
            fn no_wait_is_lost_and_what_is_lost_is_told() {
                vm::host::conserved(KERNEL);
            }

            #[test]
            fn blame_sums_to_the_ready_of_each_victim() {
                vm::host::blame(KERNEL);
            }

            #[test]
            fn moves_between_two_nodes_are_counted_exactly() {
                vm::numa::check(KERNEL, Scenario::Numa);
            }

            #[test]
            fn moves_around_four_nodes_are_counted_exactly() {
                vm::numa::check(KERNEL, Scenario::Numa4);
            }

            #[test]
            fn the_machine_is_told_as_it_is_built() {
                vm::inventory::topology(KERNEL);
            }

            #[test]
            fn vms_are_told_with_whom_they_belong_to() {
                vm::inventory::vms(KERNEL);
            }

            #[test]
            fn memory_far_from_its_vcpu_is_remote() {
                vm::remote::check(KERNEL);
            }

            #[test]
            fn a_quota_throttles_and_is_no_ready() {
                vm::quota::check(KERNEL);
            }

            #[test]
            fn a_disk_takes_its_time() {
                vm::block::check(KERNEL);
            }

            #[test]
            fn memory_is_reclaimed_then_swapped_then_gone() {
                vm::memory::check(KERNEL);
            }

            #[test]
            fn the_noisy_one_is_named_first() {
                vm::noisy::named_first(KERNEL);
            }

            #[test]
            fn a_rare_burst_shows_in_the_tail_only() {
                vm::noisy::tail(KERNEL);
            }

            #[test]
            fn idle_and_sleep_are_accounted_for() {
                vm::noisy::capacity_and_switches(KERNEL);
            }

            #[test]
            fn drops_are_those_of_the_flooded_queue() {
                vm::scarce::tap(KERNEL);
            }

            #[test]
            fn memory_in_pieces_stalls_the_vm() {
                vm::scarce::fragments(KERNEL);
            }
        }
    };
}

// ./test runs them in a step of their own, by this beginning of their names.
tests_on!(vm_lab_6_1, Series::V6_1);
tests_on!(vm_lab_6_12, Series::V6_12);

/// What a scenario brought back, from one machine for all tests of it; `None`
/// where this machine lacks what the lab needs, which is a failure if
/// `HEADROOM_REQUIRE` names `vm`.
fn run(series: Series, scenario: Scenario) -> Option<Arc<Report>> {
    type Reports = HashMap<(Series, Scenario), Arc<Report>>;
    static REPORTS: Mutex<Option<Reports>> = Mutex::new(None);
    let lab = lab(series)?;
    let mut reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let reports = reports.get_or_insert_default();
    if let Some(report) = reports.get(&(series, scenario)) {
        return Some(report.clone());
    }
    let began = Instant::now();
    let report = lab.run(scenario);
    let name = format!("{} on {}", scenario.name(), series.name());
    let report = Arc::new(report.unwrap_or_else(|e| panic!("{name}: {e}")));
    println!(
        "{name}: {:.1?}, disturbed for {:.0} % of its time",
        began.elapsed(),
        report.disturbance * 100.0
    );
    reports.insert((series, scenario), report.clone());
    Some(report)
}

fn lab(series: Series) -> Option<Arc<Lab>> {
    type Labs = HashMap<Series, Option<Arc<Lab>>>;
    static LABS: Mutex<Option<Labs>> = Mutex::new(None);
    let mut labs = LABS.lock().unwrap_or_else(PoisonError::into_inner);
    let prepared = labs.get_or_insert_default().entry(series);
    prepared.or_insert_with(|| prepare(series)).clone()
}

fn prepare(series: Series) -> Option<Arc<Lab>> {
    let error = match Lab::prepare(series) {
        Ok(lab) => return Some(Arc::new(lab)),
        Err(error) => anyhow::Error::new(error),
    };
    let want = error
        .downcast_ref()
        .is_some_and(headroom_vmlab::LabError::is_want);
    let required = std::env::var("HEADROOM_REQUIRE").unwrap_or_default();
    let name = series.name();
    assert!(
        want && !required.split(',').any(|r| r == "vm"),
        "the VM lab of kernel {name}: {error:#}"
    );
    // Not eprintln!: the test runner would keep it to itself.
    let _ = writeln!(std::io::stderr(), "skip: vm lab {name}: {error:#}");
    None
}

//! Reading the agent's rows.

use headroom_vmlab::message::Series;
use headroom_vmlab::{Report, Run};
use serde_json::Value;

/// The scenario's one agent, which ended as it should.
pub fn only(report: &Report) -> &Run {
    assert_eq!(report.runs.len(), 1);
    ended_well(&report.runs[0]);
    &report.runs[0]
}

pub fn ended_well(run: &Run) {
    assert_eq!(run.exit_code(), Some(0), "{:?}", run.said());
}

/// All probes are attached from beginning to end, on a machine with KVM and
/// that many nodes.
pub fn families(run: &Run, source: &str, nodes: u32) {
    for family in [
        "sched",
        "irq",
        "numa",
        "virtio",
        "block",
        "reclaim",
        "compaction",
        "net_queues",
        "concurrency",
    ] {
        let rows: Vec<_> = run
            .rows("probes")
            .filter(|r| r["family"] == family)
            .collect();
        assert!(!rows.is_empty(), "{family} in no row");
        // KVM's tracepoints may be a module's, which has no BTF of its own.
        let source = match family {
            "virtio" => "raw_tp",
            "concurrency" => "perf_event",
            _ => source,
        };
        for row in rows {
            if family == "numa" && nodes == 1 {
                let reason = row["reason"].as_str().unwrap_or_default();
                assert_eq!(
                    (&row["state"], &row["source"]),
                    (&"unavailable".into(), &Value::Null)
                );
                assert!(reason.starts_with("n/a: "), "{row}");
            } else {
                assert_eq!(
                    (&row["state"], &row["source"]),
                    (&"attached".into(), &source.into()),
                    "{row}"
                );
                assert_eq!(row["reason"], Value::Null, "{row}");
            }
        }
    }
}

/// The recorder's step is 20 ms.
const SURE_US: i64 = 30_000;

/// What a wholly disturbed machine adds to a tolerance: where the host stops it
/// in the middle of a switch, the kernel and a probe see the switch at other
/// times. Seen: 0.05 with 50 runnable tasks for each CPU of the host.
const DISTURBED: f64 = 0.06;

/// A tolerance on a machine that this host disturbed as it did.
pub fn tolerance(report: &Report, undisturbed: f64) -> f64 {
    undisturbed + DISTURBED * report.disturbance
}

/// One vCPU or CPU over one window.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub row: &'a Value,
    /// When the agent read it, µs since 1970: the nominal end of the window
    /// and how late the agent was.
    pub end_us: i64,
    pub window_ns: i64,
}

/// Windows of a vCPU's thread, in order; in each the states make up the whole.
pub fn vcpu(run: &Run, tid: u32) -> Vec<Window<'_>> {
    let windows = windows(run.rows("vcpus").filter(|r| r["tid"] == tid));
    for Window { row, window_ns, .. } in &windows {
        let states = ["run_ns", "ready_ns", "wait_ns"].map(|c| int(row, c));
        // Throttled time is none of the others, where it is known.
        let throttled = row["throttled_ns"].as_i64().unwrap_or(0);
        let sum = states.iter().sum::<i64>() + throttled;
        assert_eq!(sum, *window_ns, "states of {row}");
    }
    windows
}

/// Windows of a CPU, in order.
pub fn cpu(run: &Run, number: usize) -> Vec<Window<'_>> {
    windows(run.rows("cpus").filter(|r| r["cpu"] == number))
}

fn windows<'a>(rows: impl Iterator<Item = &'a Value>) -> Vec<Window<'a>> {
    let mut windows: Vec<_> = rows
        .map(|row| Window {
            row,
            end_us: int(row, "ts"),
            window_ns: int(row, "window_ns"),
        })
        .collect();
    assert!(!windows.is_empty(), "no rows");
    add_lateness(&mut windows);
    windows
}

/// Lengths are exact, so they tell how late each reading was against the
/// others; the promptest is taken to have been in time.
fn add_lateness(windows: &mut [Window<'_>]) {
    let first = windows[0];
    let mut read = first.end_us * 1000;
    let mut late = vec![0];
    for w in &windows[1..] {
        read += w.window_ns;
        late.push(read / 1000 - w.end_us);
    }
    let least = late.iter().min().copied().unwrap_or(0);
    for (w, late) in windows.iter_mut().zip(late) {
        w.end_us += late - least;
    }
}

pub fn int(row: &Value, column: &str) -> i64 {
    let value = &row[column];
    value
        .as_i64()
        .unwrap_or_else(|| panic!("{column} is {value} in {row}"))
}

/// Sum of a column that must be known in each of these rows.
pub fn total(rows: &[&Value], column: &str) -> i64 {
    rows.iter().map(|r| int(r, column)).sum()
}

/// The same over windows.
pub fn sum(windows: &[Window<'_>], column: &str) -> i64 {
    windows.iter().map(|w| int(w.row, column)).sum()
}

/// The windows that lie within a time, and the time they make up.
pub fn within<'a>(windows: &[Window<'a>], span_us: (i64, i64)) -> (Vec<Window<'a>>, (i64, i64)) {
    let begin_us = |w: &Window<'_>| w.end_us - w.window_ns / 1000;
    let inside = |w: &&Window<'_>| begin_us(w) >= span_us.0 && w.end_us <= span_us.1;
    let inside: Vec<_> = windows.iter().filter(inside).copied().collect();
    assert!(inside.len() >= 5, "{} whole windows", inside.len());
    let span = (begin_us(&inside[0]), inside[inside.len() - 1].end_us);
    (inside, span)
}

/// The same without the windows at both ends where the truth is not sure: on a
/// busy machine its recorder too has to wait.
pub fn within_sure<'a>(windows: &[Window<'a>], truth: &Series) -> (Vec<Window<'a>>, (i64, i64)) {
    let sure = |us| truth.gap_at(us).is_some_and(|gap| gap <= SURE_US);
    let begins = |w: &Window<'_>| sure(w.end_us - w.window_ns / 1000);
    let first = windows.iter().position(begins).unwrap_or(windows.len());
    let last = windows.iter().rposition(|w| sure(w.end_us)).unwrap_or(0);
    let span = |range: &[Window<'_>]| match range {
        [] => (0, 0),
        [first, ..] => (
            first.end_us - first.window_ns / 1000,
            range[range.len() - 1].end_us,
        ),
    };
    let sure = windows.get(first..=last).unwrap_or_default();
    within(sure, span(sure))
}

/// As a share of a whole.
#[expect(clippy::cast_precision_loss, reason = "ns of a minute")]
pub fn share(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

//! Any windows in any portions, against the plainest way to add them up.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use headroom_core::batch::Chunk;
use headroom_core::hist::Hist;
use headroom_core::rollup::{HOUR_US, rollups};
use headroom_core::rows::VcpuRow;
use proptest::prelude::*;

use super::super::fold::Fold;
use crate::schema;
use crate::store::hour_of;

/// VM, vCPU, end of the step, host.
type Key = (String, i64, i64, String);

#[derive(Default)]
struct Plain {
    windows: i64,
    run_ns: i64,
    window_ns: i64,
    wake: Option<i64>,
    max: Option<i64>,
    hist: Option<Hist>,
}

fn plain(rows: &[VcpuRow], step_us: i64) -> BTreeMap<Key, Plain> {
    let mut sums = BTreeMap::<Key, Plain>::new();
    for row in rows {
        let end = (row.ts + step_us - 1) / step_us * step_us;
        let key = (row.vm_id.clone(), row.vcpu, end, row.host.clone());
        let sum = sums.entry(key).or_default();
        sum.windows += 1;
        sum.run_ns += row.run_ns;
        sum.window_ns += row.window_ns;
        if let Some(wake) = row.ready_wake_ns {
            sum.wake = Some(sum.wake.unwrap_or(0) + wake);
        }
        sum.max = sum.max.max(row.ready_max_ns);
        if let Some(bytes) = &row.ready_hist {
            let hist = Hist::decode(bytes).unwrap();
            sum.hist.get_or_insert_default().merge(&hist);
        }
    }
    sums
}

fn rolled(table: &str, rows: &[VcpuRow], portion: usize) -> Vec<RecordBatch> {
    let rollup = rollups().iter().find(|r| r.table.name == table).unwrap();
    let hours: BTreeSet<i64> = rows.iter().map(|r| hour_of(r.ts)).collect();
    let mut fold = Fold::new(rollup, hours).unwrap();
    let mut made = Vec::new();
    for rows in rows.chunks(portion) {
        fold.add(&schema::made(Chunk::of(rows)).unwrap());
        made.extend(fold.take(3, false).unwrap());
    }
    made.extend(fold.take(0, true).unwrap());
    made
}

fn check(table: &str, step_us: i64, rows: &[VcpuRow], portion: usize) {
    let mut wanted = plain(rows, step_us);
    for batch in rolled(table, rows, portion) {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let int = |name: &str, i: usize| {
            let column = column(name).as_primitive::<Int64Type>();
            column.is_valid(i).then(|| column.value(i))
        };
        let text = |name: &str, i: usize| column(name).as_string::<i32>().value(i).to_owned();
        let times = column("ts").as_primitive::<TimestampMicrosecondType>();
        let hists = column("ready_hist").as_binary::<i32>();
        let ratios = column("ready_ratio").as_primitive::<Float64Type>();
        for i in 0..batch.num_rows() {
            let vcpu = int("vcpu", i).unwrap();
            let key = (text("vm_id", i), vcpu, times.value(i), text("host", i));
            let plain = wanted.remove(&key);
            let plain = plain.unwrap_or_else(|| panic!("{table}: {key:?} not wanted, or twice"));
            assert_eq!(int("windows", i), Some(plain.windows), "{key:?}");
            assert_eq!(int("run_ns", i), Some(plain.run_ns), "{key:?}");
            assert_eq!(int("window_ns", i), Some(plain.window_ns), "{key:?}");
            assert_eq!(int("ready_wake_ns", i), plain.wake, "{key:?}");
            assert_eq!(int("ready_max_ns", i), plain.max, "{key:?}");
            let hist = hists
                .is_valid(i)
                .then(|| Hist::decode(hists.value(i)).unwrap());
            assert_eq!(hist, plain.hist, "{key:?}");
            let ready = ratios.value(i) * 1e9;
            assert!((ready - 5.0).abs() < 1e-6, "{key:?}: {ready}");
        }
    }
    assert!(wanted.is_empty(), "{table}: {:?}", wanted.keys());
}

fn row() -> impl Strategy<Value = VcpuRow> {
    let keys = (0..3u8, 0..2i64, 0..2u8, 1..4 * HOUR_US / 1_000_000);
    let values = (
        0..i64::from(u32::MAX),
        prop::option::of(0..1000i64),
        prop::option::of(0..1000i64),
        prop::option::of((any::<u64>(), 1..1000u64)),
    );
    (keys, values).prop_map(|((vm, vcpu, host, s), (run, wake, max, wait))| VcpuRow {
        ts: s * 1_000_000,
        host: format!("h{host}"),
        vm_id: format!("vm-{vm}"),
        vcpu,
        window_ns: 1_000_000_000,
        run_ns: run,
        ready_ns: 5,
        ready_wake_ns: wake,
        ready_max_ns: max,
        ready_hist: wait.map(|(ns, n)| {
            let mut hist = Hist::default();
            hist.record(ns, n);
            hist.encode()
        }),
        ..VcpuRow::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_fold_is_the_sum_of_its_windows(
        mut rows in prop::collection::vec(row(), 1..200),
        portion in 1..50usize,
    ) {
        rows.sort_by(|a, b| (&a.vm_id, a.vcpu, a.ts).cmp(&(&b.vm_id, b.vcpu, b.ts)));
        check("vcpus_1m", 60_000_000, &rows, portion);
        check("vcpus_5m", 300_000_000, &rows, portion);
        check("vcpus_1h", HOUR_US, &rows, portion);
    }
}

//! Rows of every table: two hosts with three VMs each, made from the
//! catalogue, so that a new table or column is filled without a line here.

use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::hist::Hist;
use headroom_core::metric::{Column, Kind, TABLES, Table, Unit};
use headroom_proto::v1;

use crate::tests::harness::wire;

/// Length of a window, µs.
const WINDOW_US: i64 = 10_000_000;
/// Windows in one batch.
const BATCH: i64 = 20;
pub const HOSTS: [&str; 2] = ["alpha", "beta"];
const VMS: [&str; 3] = ["web", "db", "it's"];
/// Ready of each VM; `db` is the one that suffers.
pub const READY: [f64; 3] = [0.02, 0.30, 0.06];

/// The batches of a host: `windows` of them, the last ending at `end`, µs
/// since 1970 UTC.
pub fn batches(host: usize, end: i64, windows: i64) -> Vec<v1::Batch> {
    let first = end - (windows - 1) * WINDOW_US;
    let starts = (0..windows).step_by(usize::try_from(BATCH).unwrap());
    let batch = |(i, start): (usize, i64)| {
        let times = (start..windows.min(start + BATCH)).map(|n| first + n * WINDOW_US);
        let times: Vec<i64> = times.collect();
        let chunk = |t: &&'static Table| chunk(t, HOSTS[host], &times);
        let chunks = TABLES.iter().map(chunk).collect();
        wire(HOSTS[host], 1, u64::try_from(i).unwrap() + 1, chunks)
    };
    starts.enumerate().map(batch).collect()
}

pub fn vm_id(host: &str, vm: usize) -> String {
    format!("{host}-0000-4000-8000-00000000000{vm}")
}

/// What names one row besides its time.
type Key = Vec<(&'static str, Option<String>)>;

fn chunk(table: &'static Table, host: &str, times: &[i64]) -> Chunk {
    let mut chunk = Chunk::new(table);
    for &ts in times {
        for key in keys(table, host) {
            for (column, data) in table.columns.iter().zip(&mut chunk.columns) {
                push(data, table, column, &key, ts);
            }
        }
    }
    chunk
}

/// Every combination of the values that name a row of the table.
fn keys(table: &'static Table, host: &str) -> Vec<Key> {
    let mut keys: Vec<Key> = vec![Vec::new()];
    for column in table.columns {
        let values = names(table.name, column.name, host);
        if !values.is_empty() {
            let with = |key: &Key| {
                let values = values.clone().into_iter();
                let longer = values.map(|v| [key.clone(), vec![(column.name, v)]].concat());
                longer.collect::<Vec<Key>>()
            };
            keys = keys.iter().flat_map(with).collect();
        }
    }
    keys
}

fn names(table: &str, column: &str, host: &str) -> Vec<Option<String>> {
    let texts = |all: &[&str]| all.iter().map(|t| Some((*t).to_string())).collect();
    let numbers = |n: usize| (0..n).map(|i| Some(i.to_string())).collect();
    match (table, column) {
        ("forecasts" | "recommendation_log" | "events", "subject") => {
            let vms = (0..VMS.len()).map(|vm| Some(format!("vm/{}", vm_id(host, vm))));
            vms.chain([Some(format!("host/{host}"))]).collect()
        }
        ("events", "kind") => texts(&["vm_started", "agent_degraded"]),
        ("forecasts", "metric") => texts(&["demand_vcpus", "ready_ratio"]),
        ("recommendation_log", "state") => texts(&["proposed", "delivered"]),
        ("cpu_owners", "owner") => texts(&["vcpu", "iothread", "host", "interrupt", "idle"]),
        ("host_tasks", "owner_kind") => texts(&["storage", "kernel"]),
        ("host_tasks", "owner") => texts(&["ceph-osd", "(rest)"]),
        ("blame", "culprit_kind") => texts(&["vm", "self", "host", "throttle"]),
        (_, "host") => vec![Some(host.into())],
        (_, "vm_id") => (0..VMS.len()).map(|i| Some(vm_id(host, i))).collect(),
        (_, "vcpu" | "cpu" | "node" | "tid") => numbers(2),
        (_, "active") => numbers(3),
        (_, "queue") => vec![None, Some("0".into())],
        (_, "device") => texts(&["vda", "nvme0n1"]),
        (_, "op") => texts(&["read", "write", "flush"]),
        (_, "family") => texts(&["sched", "block", "numa"]),
        _ => Vec::new(),
    }
}

fn push(data: &mut ColumnData, table: &Table, column: &Column, key: &Key, ts: i64) {
    let named = key.iter().find(|(name, _)| *name == column.name);
    let named = named.map(|(_, value)| value.clone());
    let noise = noise(table.name, column.name, key, ts);
    let unavailable = named.is_none() && column.nullable && noise.is_multiple_of(11);
    let vm = key
        .iter()
        .find(|(n, _)| *n == "vm_id")
        .and_then(|(_, v)| v.as_ref());
    let vm = vm.and_then(|id| id[id.len() - 1..].parse::<usize>().ok());
    match data {
        ColumnData::Int(v) => v.push(match named {
            Some(value) => value.map(|v| v.parse().unwrap()),
            None if unavailable => None,
            None => Some(int(table.name, column, (vm, ts), noise)),
        }),
        ColumnData::Float(v) => v.push((!unavailable).then(|| float(column, vm, noise))),
        ColumnData::Text(v) => v.push(match named {
            Some(value) => value,
            None if unavailable => None,
            None => Some(text(column.name, key, vm)),
        }),
        ColumnData::Bytes(v) => v.push((!unavailable).then(|| hist(noise))),
    }
}

fn int(table: &str, column: &Column, (vm, ts): (Option<usize>, i64), noise: u64) -> i64 {
    let of_vcpus = |share: f64| {
        let vcpus = if table == "vcpus" { 1.0 } else { 2.0 };
        #[expect(clippy::cast_possible_truncation, reason = "below 2e10")]
        let ns = (share * vcpus * 1e10) as i64;
        ns
    };
    let ready = vm.map_or(0.1, |vm| READY[vm]);
    let small = i64::try_from(noise % 50).unwrap() + 1;
    match (table, column.name) {
        ("forecasts", "ts") => ts + 3_600_000_000,
        // One forecast an hour, not one a window.
        ("forecasts", "made_at") => ts - ts % 3_600_000_000,
        ("recommendation_log", "made_at") => 1_767_225_600_000_000,
        (_, _) if column.kind == Kind::Time => ts,
        (_, "window_ns") => WINDOW_US * 1000,
        ("vcpus" | "vms", "run_ns") => of_vcpus(0.4),
        ("vcpus" | "vms", "ready_ns") => of_vcpus(ready),
        ("vcpus" | "vms", "throttled_ns") => 0,
        ("vcpus" | "vms", "wait_ns") => of_vcpus(1.0) - of_vcpus(0.4) - of_vcpus(ready),
        ("hosts", "vms") => 3,
        ("hosts", "vcpus") => 6,
        ("vms", "vcpus") => 2,
        ("hosts", "threads") => 4,
        ("hosts", "idle_ns") => 15_000_000_000,
        ("hosts", "busy_ns") => 25_000_000_000,
        (_, "online" | "virtualised") => 1,
        _ => match column.unit {
            Unit::Nanoseconds => small * 1_000_000,
            Unit::Bytes => small << 24,
            _ => small,
        },
    }
}

fn float(column: &Column, vm: Option<usize>, noise: u64) -> f64 {
    let ready = vm.map_or(0.1, |vm| READY[vm]);
    let share = f64::from(u32::try_from(noise % 100).unwrap()) / 100.0;
    match (column.name, column.unit) {
        ("ready_ratio", _) => ready,
        ("ready_max_ratio", _) => ready * 1.5,
        (_, Unit::Ratio) => share,
        (_, Unit::Nanoseconds) => 1e6 * share,
        _ => 1.0 + share,
    }
}

fn text(column: &str, key: &Key, vm: Option<usize>) -> String {
    let of = |name: &str| {
        key.iter()
            .find(|(n, _)| *n == name)
            .and_then(|(_, v)| v.clone())
    };
    match column {
        "vm_name" => VMS[vm.unwrap_or(0)].into(),
        "culprit" | "culprit_name" => match of("culprit_kind").unwrap().as_str() {
            "vm" if column == "culprit" => vm_id(&of("host").unwrap(), 0),
            "vm" => VMS[0].into(),
            "host" => "ceph-osd".into(),
            kind => kind.into(),
        },
        "id" => format!("rec_{}", of("subject").unwrap()),
        "source" => "tp_btf".into(),
        "tenant" => format!("tenant-{}", vm.unwrap_or(0)),
        "state" => "partial".into(),
        "payload" => r#"{"data":{"summary":"give it a third vCPU"}}"#.into(),
        _ => format!("some {column}"),
    }
}

fn hist(noise: u64) -> Vec<u8> {
    let mut hist = Hist::default();
    hist.record(50_000 + noise % 1000, 90);
    hist.record(5_000_000, 10);
    hist.encode()
}

/// The same number for the same cell, whatever the clock says: `ts` counts by
/// its place in the hour. FNV-1a.
fn noise(table: &str, column: &str, key: &Key, ts: i64) -> u64 {
    let names = key
        .iter()
        .flat_map(|(_, v)| v.as_deref().unwrap_or("").bytes());
    let place = (ts / WINDOW_US % 360).to_le_bytes();
    let bytes = table
        .bytes()
        .chain(column.bytes())
        .chain(names)
        .chain(place);
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

//! The statements that read history, and their answers.

use arrow::array::RecordBatch;

use super::client::Columns;
use super::{Bin, HistoryError, Host, Subject, Vm};
use crate::clock::{Micros, rfc3339};

/// A window shorter than that is no window of an agent.
const SHORTEST_WINDOW: Micros = 100_000;

/// One subject's sums over one bin that begins at the time.
pub(super) type Row = (Subject, Micros, Bin);

/// Length of the latest windows, ns.
pub(super) fn window_sql() -> String {
    "SELECT window_ns FROM hosts ORDER BY ts DESC LIMIT 51".into()
}

pub(super) fn vms_sql(step: Micros, window: Micros, from: Micros) -> String {
    format!(
        "SELECT {bin} AS bin, vm_id, max(vm_name) AS vm_name, host, vcpus, max(platform) AS platform, \
         max(tenant) AS tenant, sum(run_ns + ready_ns) AS demand_ns, sum(ready_ns) AS ready_sum_ns, \
         sum(window_ns) AS window_sum_ns, sum(window_ns * vcpus) AS vcpu_ns \
         FROM vms WHERE ts >= '{from}' GROUP BY bin, vm_id, host, vcpus ORDER BY bin",
        bin = bin(step, window),
        from = rfc3339(from + window / 2),
    )
}

pub(super) fn hosts_sql(step: Micros, window: Micros, from: Micros) -> String {
    format!(
        "SELECT {bin} AS bin, host, max(threads) AS threads, max(vcpus) AS vcpus, \
         sum(coalesce(busy_ns, vm_run_ns) + vm_ready_ns) AS demand_ns, sum(vm_ready_ns) AS ready_sum_ns, \
         sum(window_ns) AS window_sum_ns, sum(window_ns * vcpus) AS vcpu_ns \
         FROM hosts WHERE ts >= '{from}' GROUP BY bin, host ORDER BY bin",
        bin = bin(step, window),
        from = rfc3339(from + window / 2),
    )
}

/// The bin of a window's middle. Windows end near multiples of their length
/// with some jitter; their ends would fall now into one bin, now into the next.
fn bin(step: Micros, window: Micros) -> String {
    format!(
        "date_bin(INTERVAL '{} milliseconds', ts - INTERVAL '{} milliseconds')",
        step / 1000,
        window / 2000
    )
}

/// The usual length of the latest windows, rounded to whole seconds (tenths
/// below one second); `None` without rows.
pub(super) fn window(batches: &[RecordBatch]) -> Result<Option<Micros>, HistoryError> {
    let mut lengths = Vec::new();
    for batch in batches {
        lengths.extend(Columns(batch).ints("window_ns")?.into_iter().flatten());
    }
    lengths.sort_unstable();
    let Some(median) = lengths.get(lengths.len() / 2).map(|ns| ns / 1000) else {
        return Ok(None);
    };
    let unit = if median >= 950_000 {
        1_000_000
    } else {
        SHORTEST_WINDOW
    };
    Ok(Some(((median + unit / 2) / unit * unit).max(unit)))
}

/// The only value of column `ts`.
pub(super) fn time(batches: &[RecordBatch]) -> Result<Option<Micros>, HistoryError> {
    let times = batches
        .iter()
        .map(|b| Columns(b).times("ts"))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(times.into_iter().flatten().flatten().next())
}

pub(super) fn vms(batches: &[RecordBatch]) -> Result<Vec<Row>, HistoryError> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns = Columns(batch);
        let (ids, names, hosts) = (
            columns.texts("vm_id")?,
            columns.texts("vm_name")?,
            columns.texts("host")?,
        );
        let (vcpus, platforms, tenants) = (
            columns.ints("vcpus")?,
            columns.texts("platform")?,
            columns.texts("tenant")?,
        );
        for (i, start, bin) in bins(&columns)? {
            let vm = Vm {
                id: ids[i].clone().unwrap_or_default(),
                name: names[i].clone().unwrap_or_default(),
                host: hosts[i].clone().unwrap_or_default(),
                vcpus: vcpus[i].unwrap_or(0),
                platform: platforms[i].clone().unwrap_or_default(),
                tenant: tenants[i].clone(),
            };
            rows.push((Subject::Vm(vm), start, bin));
        }
    }
    Ok(rows)
}

pub(super) fn hosts(batches: &[RecordBatch]) -> Result<Vec<Row>, HistoryError> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns = Columns(batch);
        let (names, threads, vcpus) = (
            columns.texts("host")?,
            columns.ints("threads")?,
            columns.ints("vcpus")?,
        );
        for (i, start, bin) in bins(&columns)? {
            let name = names[i].clone().unwrap_or_default();
            let host = Host {
                name,
                threads: threads[i].unwrap_or(0),
                vcpus: vcpus[i].unwrap_or(0),
            };
            rows.push((Subject::Host(host), start, bin));
        }
    }
    Ok(rows)
}

/// Row number, begin and sums; rows without a time or a sum are left out.
fn bins(columns: &Columns<'_>) -> Result<Vec<(usize, Micros, Bin)>, HistoryError> {
    let starts = columns.times("bin")?;
    let (demand, ready) = (
        columns.floats("demand_ns")?,
        columns.floats("ready_sum_ns")?,
    );
    let (window, vcpu) = (columns.floats("window_sum_ns")?, columns.floats("vcpu_ns")?);
    let row = |i: usize| {
        let bin = Bin {
            demand_ns: demand[i]?,
            ready_ns: ready[i]?,
            window_ns: window[i]?,
            vcpu_ns: vcpu[i]?,
        };
        Some((i, starts[i]?, bin))
    };
    Ok((0..starts.len()).filter_map(row).collect())
}

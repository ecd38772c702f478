//! Views that put rows together, and what the store says of itself.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::common::Result;
use datafusion::datasource::MemTable;

use crate::store::{Keep, Snapshot, Usage, usage};

/// Views of every session.
///
/// `placement`: whole stays of VMs on hosts. Hours that are rolled up are read
/// from `vm_stays_1h`, what came since from `vms`; rows that both hold do no
/// harm, since stays that overlap or follow within three windows are one. A
/// stay is over when the VM was seen elsewhere later, or its host had a window
/// more than three windows later. (`substr(x, 1)` and the like take the comment
/// off a column: DataFusion 55 refuses a union of columns with different ones.)
///
/// `vm_dimensions`: what VMs are grouped by, the latest of each.
pub const VIEWS: &[&str] = &[
    "CREATE VIEW placement AS WITH \
     rolled AS (SELECT max(ts) AS ts FROM vm_stays_1h), \
     seen AS ( \
       SELECT substr(vm_id, 1) AS vm_id, substr(vm_name, 1) AS vm_name, substr(host, 1) AS host, \
         valid_from + INTERVAL '0 seconds' AS began, ts + INTERVAL '0 seconds' AS ended, \
         window_ns / windows AS window_ns \
       FROM vm_stays_1h WHERE windows > 0 \
       UNION ALL \
       SELECT substr(vm_id, 1), substr(vm_name, 1), substr(host, 1), \
         ts - arrow_cast(window_ns, 'Duration(Nanosecond)'), ts + INTERVAL '0 seconds', \
         greatest(window_ns, 0) \
       FROM vms WHERE ts > coalesce((SELECT ts FROM rolled), to_timestamp(0)) - INTERVAL '2 hours'), \
     before AS ( \
       SELECT *, max(ended) OVER (PARTITION BY vm_id, host ORDER BY began, ended \
         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS was FROM seen), \
     cut AS ( \
       SELECT *, sum(CASE WHEN was IS NULL \
           OR began > was + arrow_cast(3 * window_ns, 'Duration(Nanosecond)') THEN 1 ELSE 0 END) \
         OVER (PARTITION BY vm_id, host ORDER BY began, ended \
           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS nth FROM before), \
     stays AS ( \
       SELECT vm_id, host, last_value(vm_name ORDER BY ended) AS vm_name, min(began) AS valid_from, \
         max(ended) AS ended, max(window_ns) AS window_ns FROM cut GROUP BY vm_id, host, nth), \
     told AS ( \
       SELECT host, max(ts) AS ts FROM ( \
         SELECT substr(host, 1) AS host, max(ts + INTERVAL '0 seconds') AS ts FROM hosts GROUP BY 1 \
         UNION ALL \
         SELECT substr(host, 1), max(ts - INTERVAL '1 hour') FROM hosts_1h GROUP BY 1 \
         UNION ALL SELECT host, max(ended) FROM seen GROUP BY host) AS t GROUP BY host), \
     after AS ( \
       SELECT stays.*, told.ts AS told, \
         lead(valid_from) OVER (PARTITION BY vm_id ORDER BY valid_from, ended) AS later \
       FROM stays JOIN told ON told.host = stays.host) \
     SELECT vm_id, vm_name, host, valid_from, \
       CASE WHEN later IS NOT NULL \
         OR told > ended + arrow_cast(3 * window_ns, 'Duration(Nanosecond)') THEN ended END AS valid_to \
     FROM after",
    "CREATE VIEW vm_dimensions AS SELECT vm_id, vm_name, tenant, project, vm_type, region, \
       priority, qos_class, labels FROM ( \
       SELECT *, row_number() OVER (PARTITION BY vm_id ORDER BY ts DESC) AS nth \
       FROM inventory) WHERE nth = 1",
];

/// Table `store_usage`: what every table takes on the disk, and what it will
/// take once its rows are as old as they may become.
pub fn store_usage(snapshot: &Snapshot, keep: &Keep) -> Result<MemTable> {
    let all = usage(snapshot, keep);
    let time = |pick: fn((i64, i64)) -> i64| -> ArrayRef {
        let times = all.iter().map(|u| u.span_us.map(pick));
        Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC"))
    };
    let float = |pick: fn(&Usage) -> Option<f64>| -> ArrayRef {
        Arc::new(all.iter().map(pick).collect::<Float64Array>())
    };
    let int = |pick: fn(&Usage) -> u64| -> ArrayRef {
        let values = all.iter().map(|u| i64::try_from(pick(u)).ok());
        Arc::new(values.collect::<Int64Array>())
    };
    let names = all.iter().map(|u| Some(u.table)).collect::<StringArray>();
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("table_name", Arc::new(names) as ArrayRef, false),
        ("bytes", int(|u| u.bytes), false),
        ("rows", int(|u| u.rows), false),
        ("oldest", time(|s| s.0), true),
        ("newest", time(|s| s.1), true),
        ("bytes_per_day", float(|u| u.bytes_per_day), true),
        ("predicted_bytes", float(|u| u.predicted_bytes), true),
        ("keep_s", int(|u| u.keep.as_secs()), false),
    ])?;
    MemTable::try_new(rows.schema(), vec![vec![rows]])
}

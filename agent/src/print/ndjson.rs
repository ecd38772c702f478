//! Rows as JSON lines, in the catalogue's order of columns.

use std::io;

use headroom_core::batch::{Chunk, ColumnData};
use headroom_core::hist::{self, Hist};
use serde_json::{Value, json};

/// Appends one line for each row. Unavailable values are `null`.
pub(super) fn append(chunk: &Chunk, out: &mut Vec<u8>) -> io::Result<()> {
    for row in 0..chunk.rows() {
        out.extend_from_slice(b"{\"table\":");
        serde_json::to_writer(&mut *out, chunk.table.name)?;
        for (column, data) in chunk.table.columns.iter().zip(&chunk.columns) {
            out.push(b',');
            serde_json::to_writer(&mut *out, column.name)?;
            out.push(b':');
            serde_json::to_writer(&mut *out, &value(data, row))?;
        }
        out.extend_from_slice(b"}\n");
    }
    Ok(())
}

fn value(data: &ColumnData, row: usize) -> Value {
    match data {
        ColumnData::Int(v) => v.get(row).copied().flatten().into(),
        ColumnData::Float(v) => v.get(row).copied().flatten().into(),
        ColumnData::Text(v) => v.get(row).cloned().flatten().into(),
        ColumnData::Bytes(v) => {
            let bytes = v.get(row).and_then(Option::as_ref);
            histogram(bytes.and_then(|b| Hist::decode(b).ok()))
        }
    }
}

/// Readable without our encoding: quantiles, and `[lower bound, count]` of
/// each bucket that holds something, all in ns.
fn histogram(hist: Option<Hist>) -> Value {
    let Some(hist) = hist else {
        return Value::Null;
    };
    let buckets = hist.counts().iter().enumerate().filter(|(_, n)| **n > 0);
    let counts: Vec<_> = buckets.map(|(i, n)| (hist::lower(i), n)).collect();
    json!({
        "total": hist.total(),
        "p50_ns": hist.quantile(0.5),
        "p99_ns": hist.quantile(0.99),
        "counts": counts,
    })
}

#[cfg(test)]
mod tests {
    use headroom_core::metric::Kind;
    use headroom_core::rows::{EventRow, VCPUS, VcpuRow};

    use super::*;

    fn lines(chunk: &Chunk) -> Vec<String> {
        let mut out = Vec::new();
        append(chunk, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_come_in_the_order_of_the_catalogue() {
        let row = EventRow {
            ts: 1_763_692_919_000_001,
            host: "a".into(),
            kind: "vm_started".into(),
            subject: "vm/\"x\"\n".into(),
            detail: String::new(),
        };
        assert_eq!(
            lines(&Chunk::of(&[row.clone(), row])),
            [concat!(
                r#"{"table":"events","ts":1763692919000001,"host":"a","#,
                r#""kind":"vm_started","subject":"vm/\"x\"\n","detail":""}"#
            ); 2]
        );
    }

    #[test]
    fn unavailable_is_null_and_a_histogram_is_readable() {
        let mut waits = Hist::default();
        waits.record(1_000_000, 99);
        waits.record(20_000_000, 1);
        let known = VcpuRow {
            ready_hist: Some(waits.encode()),
            throttled_ns: Some(0),
            ready_ratio: 0.25,
            ..VcpuRow::default()
        };
        let lines = lines(&Chunk::of(&[known, VcpuRow::default()]));
        let [a, b] = [&lines[0], &lines[1]].map(|l| serde_json::from_str::<Value>(l).unwrap());
        assert_eq!(a["throttled_ns"], 0);
        assert_eq!(a["ready_ratio"], 0.25);
        assert_eq!(a["ready_hist"]["total"], 100);
        let p50 = a["ready_hist"]["p50_ns"].as_u64().unwrap();
        assert!(p50.abs_diff(1_000_000) <= 125_000, "{p50}");
        let counts = a["ready_hist"]["counts"].as_array().unwrap();
        assert_eq!(counts.len(), 2);
        assert_eq!((&counts[0][1], &counts[1][1]), (&json!(99), &json!(1)));
        let lower = counts[1][0].as_u64().unwrap();
        assert!((15_000_000..=20_000_000).contains(&lower), "{lower}");
        for column in VCPUS.columns.iter().filter(|c| c.nullable) {
            assert_eq!(b[column.name], Value::Null, "{}", column.name);
        }
    }

    #[test]
    fn every_kind_of_column_has_a_value_and_a_null() {
        let kinds = [Kind::Time, Kind::Int, Kind::Float, Kind::Text, Kind::Hist];
        for kind in kinds {
            assert_eq!(value(&ColumnData::unavailable(kind, 1), 0), Value::Null);
        }
        assert_eq!(value(&ColumnData::Int(vec![Some(-1)]), 0), -1);
        assert_eq!(
            value(&ColumnData::Float(vec![Some(f64::NAN)]), 0),
            Value::Null
        );
    }
}

use arrow::array::{BinaryArray, Float64Array, Int64Array, TimestampMicrosecondArray};

use super::*;

fn rows() -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![Some(1_767_225_600_000_001), None]);
    let columns: [(&str, ArrayRef); 5] = [
        ("ts", Arc::new(times.with_timezone("UTC"))),
        (
            "name",
            Arc::new(StringArray::from(vec![Some("a,\"b\"\nc"), None])),
        ),
        ("n", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        ("x", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
        (
            "hist",
            Arc::new(BinaryArray::from(vec![Some(&b"\x01\x02"[..]), None])),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()
}

fn whole(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = Encoder::new(format, &rows().schema()).unwrap();
    let mut all = encoder.head();
    for batch in batches {
        all.extend(encoder.rows(batch).unwrap());
    }
    all.extend(encoder.tail().unwrap());
    all
}

#[test]
fn json_says_times_nulls_and_histograms() {
    let text = whole(Format::Json, &[rows(), rows()]);
    let array: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let first = serde_json::json!({
        "ts": "2026-01-01T00:00:00.000001Z", "name": "a,\"b\"\nc", "n": i64::MAX, "x": 0.5, "hist": "AQI=",
    });
    let nothing =
        serde_json::json!({ "ts": null, "name": null, "n": null, "x": null, "hist": null });
    assert_eq!(array, serde_json::json!([first, nothing, first, nothing]));
    assert_eq!(whole(Format::Json, &[]), b"[]\n");
    let lines = String::from_utf8(whole(Format::Ndjson, &[rows()])).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(whole(Format::Ndjson, &[]), b"");
}

#[test]
fn csv_has_one_header_and_quotes() {
    let text = String::from_utf8(whole(Format::Csv, &[rows(), rows()])).unwrap();
    let row =
        "2026-01-01T00:00:00.000001Z,\"a,\"\"b\"\"\nc\",9223372036854775807,0.5,AQI=\n,,,NaN,\n";
    assert_eq!(text, format!("ts,name,n,x,hist\n{row}{row}"));
    assert_eq!(whole(Format::Csv, &[]), b"ts,name,n,x,hist\n");
}

#[test]
fn arrow_comes_back_as_it_was() {
    let bytes = whole(Format::Arrow, &[rows(), rows()]);
    let reader = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap();
    let back: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    // NaN is not equal to itself: compared as text.
    assert_eq!(format!("{back:?}"), format!("{:?}", [rows(), rows()]));
}

#[test]
fn formats_are_negotiated() {
    assert_eq!(Format::accepted("text/html, text/csv;q=0.9"), Format::Csv);
    assert_eq!(Format::accepted("*/*"), Format::Json);
    assert_eq!(Format::named("parquet"), None);
}

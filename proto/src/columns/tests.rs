use headroom_core::batch::{Batch, Chunk, ColumnData};
use headroom_core::metric::SCHEMA_VERSION;
use headroom_core::rows::{EventRow, VcpuRow};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::convert::{from_wire, to_wire};

fn batch(ints: &[i64]) -> Batch {
    let row = |(i, v): (i64, &i64)| VcpuRow {
        ts: 1_700_000_000_000_000 + i,
        vm_id: format!("vm{i}ü"),
        vcpu: i,
        run_ns: *v,
        ready_hist: (i % 2 == 0).then(|| vec![7, 1]),
        node_migrations: (i % 3 == 0).then_some(*v),
        ready_ratio: 0.25,
        ..VcpuRow::default()
    };
    let vcpus: Vec<_> = (0..).zip(ints).map(row).collect();
    let events = [EventRow {
        ts: 1,
        ..EventRow::default()
    }];
    Batch {
        agent_id: "a".into(),
        host: "h".into(),
        epoch: 5,
        seq: 1,
        made_at_us: 9,
        schema_version: SCHEMA_VERSION,
        chunks: vec![Chunk::of(&vcpus), Chunk::of(&events)],
    }
}

/// The same as an object for each value.
fn objects(rows: &Rows) -> Chunk {
    let mut chunk = Chunk::new(rows.table);
    for ((column, values), out) in rows
        .table
        .columns
        .iter()
        .zip(&rows.columns)
        .zip(&mut chunk.columns)
    {
        let Some(values) = values else {
            *out = ColumnData::unavailable(column.kind, rows.rows);
            continue;
        };
        let there = |i: usize| {
            values
                .missing
                .get(i / 8)
                .is_none_or(|b| b & (1 << (i % 8)) == 0)
        };
        let slice = |s: &Slices, i: usize| {
            let end = |i: usize| usize::try_from(s.offsets[i]).unwrap();
            s.bytes[end(i)..end(i + 1)].to_vec()
        };
        for i in 0..rows.rows {
            match (&values.data, &mut *out) {
                (Data::Int(v), ColumnData::Int(o)) => o.push(there(i).then_some(v[i])),
                (Data::Float(v), ColumnData::Float(o)) => o.push(there(i).then_some(v[i])),
                (Data::Bytes(v), ColumnData::Bytes(o)) => o.push(there(i).then(|| slice(v, i))),
                (Data::Bytes(v), ColumnData::Text(o)) => {
                    o.push(there(i).then(|| String::from_utf8(slice(v, i)).unwrap()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    chunk
}

/// Both readers on the same bytes: same rows, or both refuse.
fn agree(bytes: &[u8]) {
    let Ok(wire) = crate::v1::Batch::decode(bytes) else {
        return;
    };
    match (from_wire(&wire), rows(bytes)) {
        (Ok(decoded), Ok((_, read, unknown))) => {
            assert_eq!(decoded.unknown_rows, unknown);
            let read: Vec<Chunk> = read.iter().map(objects).collect();
            // NaN is not equal to itself.
            assert_eq!(format!("{:?}", decoded.batch.chunks), format!("{read:?}"));
        }
        (Err(expected), Err(ReadError::Convert(got))) => assert_eq!(expected, got),
        (Err(_), Err(ReadError::Malformed)) => {}
        (a, b) => panic!("{a:?} {b:?}"),
    }
}

#[test]
fn what_contradicts_the_catalogue_is_refused_in_the_same_words() {
    let wire = to_wire(&batch(&[1, 2, 3]));
    let spoiled: [fn(&mut crate::v1::Batch); 8] = [
        |b| b.agent_id.clear(),
        |b| b.seq = 0,
        |b| b.schema_version = 99,
        |b| b.chunks[0].rows = 4,
        |b| b.chunks[0].columns.clear(),
        |b| b.chunks[0].columns[0].missing = vec![1],
        |b| b.chunks[0].columns[1].missing = vec![0, 0],
        |b| b.chunks[0].columns[1].ints = b.chunks[0].columns[0].ints.clone(),
    ];
    for spoil in spoiled {
        let mut bad = wire.clone();
        spoil(&mut bad);
        agree(&bad.encode_to_vec());
    }
    let mut newer = wire.clone();
    newer.chunks[1].table = "of_next_year".into();
    newer.chunks[0]
        .columns
        .retain(|c| c.name != "node_migrations");
    agree(&newer.encode_to_vec());
    assert_eq!(rows(&newer.encode_to_vec()).unwrap().2, 1);
}

proptest! {
    #[test]
    fn both_readers_see_the_same(ints in prop::collection::vec(any::<i64>(), 1..30)) {
        let bytes = to_wire(&batch(&ints)).encode_to_vec();
        let (name, read, _) = rows(&bytes).unwrap();
        prop_assert_eq!(name.rows, ints.len() as u64 + 1);
        prop_assert_eq!(objects(&read[0]), batch(&ints).chunks[0].clone());
        agree(&bytes);
    }

    #[test]
    fn damaged_bytes_never_panic_and_never_give_other_rows(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = to_wire(&batch(&[1, -5, 1 << 40])).encode_to_vec();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        agree(&bytes);
        let _ = rows(&bytes[..cut.index(bytes.len())]);
    }
}

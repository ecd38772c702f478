use headroom_core::rows::{EventRow, VcpuRow};

use super::*;

fn batch() -> Batch {
    let vcpus: Vec<VcpuRow> = (0..11)
        .map(|i| VcpuRow {
            ts: 1_700_000_000_000_000 + i,
            vm_id: format!("vm{i}"),
            vcpu: i,
            ready_hist: (i % 2 == 0).then(|| vec![7, 1]),
            node_migrations: (i % 3 == 0).then_some(i),
            ready_ratio: 0.25,
            ..VcpuRow::default()
        })
        .collect();
    let events = [EventRow {
        ts: 1,
        kind: "agent_started".into(),
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

#[test]
fn from_wire_inverts_to_wire() {
    let decoded = from_wire(&to_wire(&batch())).unwrap();
    assert_eq!(
        decoded,
        Decoded {
            batch: batch(),
            unknown_rows: 0
        }
    );
}

#[test]
fn unknown_tables_and_absent_nullable_columns_are_taken() {
    let mut wire = to_wire(&batch());
    wire.chunks[1].table = "of_next_year".into();
    wire.chunks[0]
        .columns
        .retain(|c| c.name != "node_migrations");
    let decoded = from_wire(&wire).unwrap();
    assert_eq!(decoded.unknown_rows, 1);
    let at = headroom_core::rows::VCPUS
        .position("node_migrations")
        .unwrap();
    assert_eq!(
        decoded.batch.chunks[0].columns[at],
        ColumnData::Int(vec![None; 11])
    );
}

#[test]
fn contradictions_are_refused_by_name() {
    let mut wire = to_wire(&batch());
    wire.chunks[0].rows = u32::MAX;
    assert!(
        from_wire(&wire)
            .unwrap_err()
            .to_string()
            .starts_with("column vcpus.ts:")
    );
    let mut wire = to_wire(&batch());
    wire.chunks[0].columns.retain(|c| c.name != "run_ns");
    assert_eq!(
        from_wire(&wire).unwrap_err().to_string(),
        "column vcpus.run_ns: is missing"
    );
    let mut wire = to_wire(&batch());
    wire.chunks[0].columns[0].missing = vec![1, 0];
    assert_eq!(
        from_wire(&wire).unwrap_err().to_string(),
        "column vcpus.ts: may not be unavailable"
    );
    let mut wire = to_wire(&batch());
    wire.schema_version = 99;
    assert!(matches!(
        from_wire(&wire),
        Err(ConvertError::Version { got: 99 })
    ));
    let mut wire = to_wire(&batch());
    wire.seq = 0;
    assert!(from_wire(&wire).is_err());
}

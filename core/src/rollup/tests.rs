use super::*;

#[test]
fn every_roll_up_is_well_formed() {
    for rollup in rollups() {
        let table = rollup.table;
        assert_eq!(table.columns[0].name, "ts", "{}", table.name);
        for c in table.columns {
            let same = table.columns.iter().filter(|d| d.name == c.name);
            assert_eq!(same.count(), 1, "{}.{}", table.name, c.name);
            let known = match c.roll {
                Roll::Mean { weight } => vec![weight],
                Roll::Ratio { over, under, .. } => vec![over, under],
                _ => vec![],
            };
            for name in known {
                assert!(
                    table.position(name).is_some(),
                    "{}.{}: {name}",
                    table.name,
                    c.name
                );
            }
            if let Roll::Merge = c.roll {
                assert_eq!(c.kind, Kind::Hist, "{}.{}", table.name, c.name);
            }
            if let Roll::Sum = c.roll {
                assert_eq!(c.kind, Kind::Int, "{}.{}", table.name, c.name);
            }
        }
        for sorted in table.sort {
            assert!(table.position(sorted).is_some(), "{}: {sorted}", table.name);
        }
        // Groups come one after the other only if what sorts them is a key.
        let keys = table.sort.iter().filter(|name| **name != "ts");
        for key in keys {
            let c = table.columns[table.position(key).unwrap()];
            assert_eq!(c.roll, Roll::Key, "{}.{key}", table.name);
        }
        assert_eq!(table.sort.last(), Some(&"ts"));
        assert!(table.position(WINDOWS).is_some() && table.position("window_ns").is_some());
    }
    assert_eq!(rollups().len(), 4 * ROLLED.len() + 1);
}

#[test]
fn the_roll_up_of_a_roll_up_has_the_same_columns() {
    for rollup in rollups().iter().filter(|r| r.is_second()) {
        assert_eq!(
            rollup.table.columns, rollup.source.columns,
            "{}",
            rollup.table.name
        );
    }
}

#[test]
fn ratios_come_from_sums() {
    let vms = stored().iter().find(|t| t.name == "vms_1d").unwrap();
    let ratio = vms.columns[vms.position("ready_ratio").unwrap()];
    let wanted = Roll::Ratio {
        over: "ready_ns",
        under: "provisioned_ns",
        times: None,
    };
    assert_eq!(ratio.roll, wanted);
    assert!(kept_long(vms) && kept_long(&INVENTORY) && !kept_long(&VMS));
}

use super::*;
use crate::exposition::Form;
use crate::metric::table;
use crate::rows::{HostRow, VmMemoryRow, VmRow};

fn vm(run_ns: i64, throttled_ns: Option<i64>) -> Chunk {
    let mut hist = Hist::default();
    hist.record(10_000, 3);
    hist.record(1 << 20, 2);
    hist.record(5_000_000_000, 1);
    Chunk::of(&[VmRow {
        host: "h".into(),
        vm_id: "v".into(),
        vm_name: "web".into(),
        vcpus: 2,
        run_ns,
        ready_ns: 500_000_000,
        throttled_ns,
        ready_hist: Some(hist.encode()),
        ..VmRow::default()
    }])
}

fn page(totals: &Totals) -> String {
    let mut page = Page::new(Form::Classic);
    totals.write(&mut page);
    page.finish()
}

fn add(totals: &mut Totals, chunk: &Chunk, seen: i64) {
    for row in 0..chunk.rows() {
        assert!(totals.add(chunk.table, chunk, row, seen).is_some());
    }
}

#[test]
fn windows_add_up_and_what_is_not_told_is_absent() {
    let mut totals = Totals::default();
    add(&mut totals, &vm(1_000_000_000, Some(5)), 1);
    add(&mut totals, &vm(2_500_000_000, None), 2);
    let text = page(&totals);
    let labels = "{host=\"h\",vm_id=\"v\",vm_name=\"web\"}";
    let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    has(&format!("headroom_vm_run_seconds_total{labels} 3.5"));
    has(&format!("headroom_vm_vcpus{labels} 2"));
    assert!(!text.contains("throttled"), "{text}");
    assert!(!text.contains("migrations"), "{text}");
    add(&mut totals, &vm(0, Some(999_999_995)), 3);
    let back = page(&totals);
    assert!(
        back.contains(&format!("headroom_vm_throttled_seconds_total{labels} 1\n")),
        "{back}"
    );
}

#[test]
fn waits_stand_on_the_right_side_of_their_bound() {
    let mut totals = Totals::default();
    add(&mut totals, &vm(0, None), 1);
    let text = page(&totals);
    let bucket = |le: &str| {
        let tail = format!("le=\"{le}\"}} ");
        let line = text.lines().find(|l| l.contains(&tail));
        line.and_then(|l| l.rsplit(' ').next()).unwrap().to_owned()
    };
    assert_eq!(bucket("0.000016384"), "3");
    assert_eq!(
        bucket("0.001048576"),
        "3",
        "2^20 ns is not below its own bound"
    );
    assert_eq!(bucket("0.004194304"), "5");
    assert_eq!(bucket("1.073741824"), "5");
    assert_eq!(bucket("+Inf"), "6");
    assert!(text.contains(
        "headroom_vm_runq_wait_seconds_sum{host=\"h\",vm_id=\"v\",vm_name=\"web\"} 0.5\n"
    ));
}

#[test]
fn bounds_are_those_of_the_labels_and_of_stored_buckets() {
    for (ns, le) in BOUNDS_NS.iter().zip(LE) {
        assert_eq!(seconds(*ns).to_string(), le);
        assert_eq!(crate::hist::lower(index(*ns)), *ns);
    }
}

#[test]
fn other_tables_keep_the_labels_and_the_gone_are_forgotten() {
    let mut totals = Totals::default();
    add(&mut totals, &vm(1, None), 1);
    let memory = Chunk::of(&[VmMemoryRow {
        host: "h".into(),
        vm_id: "v".into(),
        resident_bytes: Some(7),
        ..VmMemoryRow::default()
    }]);
    add(&mut totals, &memory, 1);
    let line = "headroom_vm_memory_resident_bytes{host=\"h\",vm_id=\"v\",vm_name=\"web\"} 7\n";
    assert!(page(&totals).contains(line));
    totals.retire(1);
    assert_eq!(totals.len(), 1);
    totals.retire(2);
    assert!(totals.is_empty());
}

#[test]
fn pressure_is_a_share_of_vcpu_time() {
    let host = |vcpus, vm_ready_ns| {
        let chunk = Chunk::of(&[HostRow {
            host: "h".into(),
            window_ns: 10,
            vcpus,
            vm_ready_ns,
            ..HostRow::default()
        }]);
        let mut totals = Totals::default();
        add(&mut totals, &chunk, 1);
        let text = page(&totals);
        let line = text
            .lines()
            .find(|l| l.starts_with("headroom_node_pressure{"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(host(4, 10), "0.25");
    assert_eq!(host(0, 0), "0");
    assert_eq!(host(1, 11), "1", "a wait counted across the edge");
}

#[test]
fn every_series_names_a_column_that_exists() {
    for s in VM_SERIES.iter().chain(HOST_SERIES) {
        let declared = table(s.table).expect(s.table);
        assert!(declared.position(s.column).is_some(), "{}", s.column);
        if let How::Hist(sum) = s.how {
            assert!(declared.position(sum).is_some(), "{sum}");
        }
    }
}

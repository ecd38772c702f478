use super::*;
use crate::query::session;

fn gate(text: &str) -> Result<Passed, QueryError> {
    let (text, config) = (text.to_owned(), session::config().unwrap());
    // As on a query thread: a test's own has 2 MiB.
    std::thread::Builder::new()
        .stack_size(crate::query::engine::STACK_BYTES)
        .spawn(move || check(&text, &config))
        .unwrap()
        .join()
        .expect("the gate fell over")
}

#[test]
fn names_every_table_wherever_it_stands() {
    let sql = "WITH w AS (SELECT * FROM hosts) SELECT (SELECT max(ts) FROM events) FROM w, \"VMs\" \
        JOIN public.vcpus v ON v.ts IN (SELECT ts FROM blame) WHERE EXISTS (SELECT 1 FROM numa) \
        UNION ALL SELECT ts FROM headroom.public.memory ORDER BY (SELECT 1 FROM nodes)";
    let tables = gate(sql).unwrap().tables;
    assert_eq!(
        tables,
        [
            "blame", "events", "hosts", "memory", "nodes", "numa", "vcpus", "vms", "w"
        ]
    );
    assert_eq!(
        gate("EXPLAIN ANALYZE SELECT * FROM vcpus").unwrap().tables,
        ["vcpus"]
    );
    assert_eq!(gate("DESCRIBE vcpus").unwrap().tables, ["vcpus"]);
    assert!(gate("SHOW TABLES").unwrap().tables.is_empty());
    assert!(gate("VALUES (1), (2)").unwrap().tables.is_empty());
}

#[test]
fn what_writes_or_reads_elsewhere_is_refused_with_a_remedy() {
    let only = "only SELECT";
    for (sql, problem) in [
        ("DROP TABLE vcpus", only),
        ("EXPLAIN ANALYZE INSERT INTO vcpus VALUES (1)", only),
        ("EXPLAIN COPY vcpus TO '/tmp/x'", only),
        (
            "WITH w AS (INSERT INTO vcpus VALUES (1) RETURNING *) SELECT 1",
            only,
        ),
        ("SET a = 1", only),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "empty"),
        (";;", "empty"),
        ("SELECT * INTO t FROM vcpus", "SELECT INTO"),
        ("SELECT * FROM vcpus FOR UPDATE", "FOR UPDATE"),
        ("SELECT * FROM '/etc/passwd'", "no files"),
        ("SELECT * FROM \"/etc/passwd\"", "no files"),
        ("SELECT * FROM `s3://bucket/x`", "no files"),
        ("SELECT * FROM read_parquet('x')", "table function"),
        ("SELECT * FROM vcpus, LATERAL flatten(ts)", "table function"),
        ("SELECT * FROM a.b.c.d", "no table"),
        (
            "SELECT 1 FROM vcpus WHERE Public.\"REPEAT\"('x', 3) = 'x'",
            "repeat is not allowed",
        ),
    ] {
        let error = gate(sql).expect_err(sql).to_string();
        assert!(error.contains(problem), "{sql}: {error}");
    }
}

#[test]
fn size_has_bounds_and_the_stack_holds() {
    let chain = |term: &str, n: usize| format!("SELECT {}", vec![term; n].join(""));
    for (sql, problem) in [
        (chain("1+", 32_000) + "1", "words and signs"),
        (chain("1 OR ", 4_900) + "1", "nests deeper"),
        (chain("-1,", 6_000) + "1", "expressions allowed"),
        (vec!["SELECT 1"; 300].join(" UNION "), "SELECTs allowed"),
        (
            format!("SELECT 1 FROM vcpus{}", ",vcpus".repeat(80)),
            "tables allowed",
        ),
        (
            format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
            "too deeply to be read",
        ),
    ] {
        let error = gate(&sql).expect_err(problem).to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
    gate(&(chain("1 OR ", 400) + "1")).unwrap();
    gate(&format!(
        "SELECT 1 FROM vcpus WHERE vcpu IN ({}1)",
        "7,".repeat(5_000)
    ))
    .unwrap();
}

//! The texts, by family.

use std::path::Path;

/// One text.
pub struct Text {
    pub sql: String,
    /// No rows may come.
    pub must_fail: bool,
}

/// Every family's.
pub fn all(canary: &Path) -> Vec<Text> {
    let mut texts = Vec::new();
    let mut must_fail = |sqls: Vec<String>| {
        texts.extend(sqls.into_iter().map(|sql| Text {
            sql,
            must_fail: true,
        }));
    };
    must_fail(changes(canary));
    must_fail(files(canary));
    must_fail(out_of_nothing());
    must_fail(nonsense());
    must_fail(too_large());
    must_fail(endless());
    texts.extend(may_answer().into_iter().map(|sql| Text {
        sql,
        must_fail: false,
    }));
    texts
}

/// Statements that change something or have a state.
const CHANGES: &[&str] = &[
    "DROP TABLE vcpus",
    "DROP VIEW recommendations",
    "DROP SCHEMA public CASCADE",
    "DELETE FROM vcpus",
    "TRUNCATE TABLE vcpus",
    "UPDATE vcpus SET run_ns = 0",
    "INSERT INTO vcpus SELECT * FROM vcpus",
    "INSERT INTO events VALUES (1)",
    "MERGE INTO vcpus USING vms ON true WHEN MATCHED THEN DELETE",
    "ALTER TABLE vcpus ADD COLUMN x INT",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TABLE t (a INT)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW vcpus AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE INDEX i ON vcpus (ts)",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "SELECT * INTO t FROM vcpus",
    "SELECT 1 INTO TEMPORARY t",
    "SELECT * FROM vcpus FOR UPDATE",
    "WITH w AS (INSERT INTO vcpus VALUES (1) RETURNING *) SELECT * FROM w",
    "WITH w AS (DELETE FROM vcpus RETURNING *) SELECT * FROM w",
    "SET datafusion.optimizer.enable_dynamic_filter_pushdown = true",
    "SET datafusion.execution.batch_size = 100000000",
    "SET TIME ZONE 'UTC'",
    "RESET datafusion.execution.time_zone",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DECLARE c CURSOR FOR SELECT 1",
    "LISTEN x",
    "LOCK TABLE vcpus",
    "CALL f()",
    "USE other",
    "KILL 1",
    "ANALYZE vcpus",
    "VACUUM",
    "GRANT ALL ON vcpus TO public",
    "REVOKE ALL ON vcpus FROM public",
    "EXPLAIN DROP TABLE vcpus",
    "EXPLAIN ANALYZE DELETE FROM vcpus",
    "EXPLAIN ANALYZE INSERT INTO vcpus SELECT * FROM vcpus",
    "EXPLAIN EXPLAIN DROP TABLE vcpus",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE vcpus",
    "SHOW TABLES; DROP TABLE vcpus",
    "SELECT 1 /* ; */; -- ;\nDROP TABLE vcpus",
    "SELECT ';' ; DELETE FROM vcpus",
];

/// [`CHANGES`] and those that name a file.
fn changes(canary: &Path) -> Vec<String> {
    let out = canary.with_file_name("out");
    let out = out.display();
    let mut texts: Vec<String> = CHANGES.iter().map(ToString::to_string).collect();
    texts.extend([
        format!("COPY (SELECT 1) TO '{out}.csv'"),
        format!("COPY vcpus TO '{out}.parquet' STORED AS PARQUET"),
        format!("EXPLAIN COPY vcpus TO '{out}.parquet'"),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}.csv'"),
        format!("INSERT INTO '{out}.csv' SELECT 1"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{out}.csv'"),
        "COPY vcpus FROM '/etc/passwd'".into(),
        "COPY vcpus FROM PROGRAM 'id'".into(),
        "UNLOAD (SELECT 1) TO 's3://bucket/x'".into(),
        "LOAD DATA INPATH '/etc/passwd' INTO TABLE vcpus".into(),
    ]);
    texts
}

/// Files, URLs and other places than the catalogue.
fn files(canary: &Path) -> Vec<String> {
    let canary = canary.display().to_string();
    let places = [
        canary.clone(),
        format!("file://{canary}"),
        format!("file:{canary}"),
        format!("/proc/self/root{canary}"),
        format!("{}/../canary.csv", canary.replace("/canary.csv", "/data")),
        "/etc/passwd".into(),
        "../../etc/passwd".into(),
        "s3://bucket/x.parquet".into(),
        "http://169.254.169.254/latest/meta-data".into(),
        "https://127.0.0.1/x.csv".into(),
        "//etc/passwd".into(),
        "/etc/passwd\u{200b}".into(),
    ];
    let mut texts = Vec::new();
    for place in &places {
        texts.push(format!("SELECT * FROM '{place}'"));
        texts.push(format!("SELECT * FROM \"{place}\""));
        texts.push(format!("SELECT (SELECT max(a) FROM `{place}`)"));
    }
    for call in [
        "read_csv",
        "read_parquet",
        "read_json",
        "parquet_metadata",
        "glob",
        "read_text",
        "pg_read_file",
        "read_blob",
        "delta_scan",
        "url",
        "file",
        "s3",
    ] {
        texts.push(format!("SELECT * FROM {call}('{canary}')"));
    }
    texts.push(format!("SELECT pg_read_file('{canary}')"));
    texts.push(format!("SELECT load_file('{canary}')"));
    texts.push(format!(
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{canary}'"
    ));
    texts.push(format!("DESCRIBE '{canary}'"));
    texts.push(format!("SELECT * FROM headroom.public.\"{canary}\""));
    texts.push(format!(
        "SELECT * FROM vcpus UNION ALL SELECT * FROM '{canary}'"
    ));
    texts
}

/// Functions that make rows or bytes.
fn out_of_nothing() -> Vec<String> {
    let mut texts = Vec::new();
    for call in [
        "repeat('x', 1500000000)",
        "REPEAT('x', 1500000000)",
        "\"repeat\"('x', 1500000000)",
        "lpad('x', 1500000000, 'y')",
        "rpad('x', 1500000000, 'y')",
        "array_repeat('x', 1500000000)",
        "list_repeat('x', 1500000000)",
        "array_resize([1], 1500000000)",
        "list_resize([1], 1500000000, 0)",
        "generate_series(1, 1000000000)",
        "range(1, 1000000000)",
        "generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2200-01-01', INTERVAL '1' SECOND)",
    ] {
        texts.push(format!("SELECT {call}"));
        texts.push(format!(
            "SELECT count(*) FROM vcpus WHERE {call} IS NOT NULL"
        ));
        texts.push(format!(
            "SELECT max(x) FROM (SELECT length({call}) AS x FROM vcpus)"
        ));
    }
    for call in [
        "generate_series(1, 1000000000000)",
        "range(1, 1000000000000)",
    ] {
        texts.push(format!("SELECT * FROM {call}"));
        texts.push(format!("SELECT count(*) FROM vcpus, LATERAL {call}"));
        texts.push(format!(
            "WITH w AS (SELECT * FROM {call}) SELECT count(*) FROM w, w AS v"
        ));
        texts.push(format!("SELECT count(*) FROM unnest({call})"));
    }
    texts
}

/// What is no query over these tables.
fn nonsense() -> Vec<String> {
    [
        "", ";", ";;;;", "\0", "SELECT", "SELECT \0", "SELECT nothing FROM vcpus",
        "SELECT * FROM nowhere", "SELECT * FROM vcpus.vcpus.vcpus.vcpus", "SELECT 1/0",
        "SELECT CAST('x' AS BIGINT)", "SELECT hist_quantile('no histogram at all', 0.5)",
        "SELECT hist_merge(1)", "SELECT 'open", "SELECT \"open", "SELECT $$open", "SELECT /* open",
        "SELECT * FROM \u{ff56}\u{ff43}\u{ff50}\u{ff55}\u{ff53}",
        "\u{ff33}ELECT 1", "SELECT \u{202e}1 MORF vcpus",
        "SELECT \u{ff52}epeat('x', 1500000000)", "SELECT re\u{200b}peat('x', 1500000000)",
        "SELECT r\u{0435}peat('x', 1500000000)", "SELECT U&'\\00g1'",
        "SELECT CAST('9' AS DECIMAL(1000, 999))",
        "SELECT CAST(99999999999999999999999999999999999999999999999999999999999999999999999999999999 AS DECIMAL(76, 0)) * CAST(99999999999999999999999999999999999999999999999999 AS DECIMAL(76, 0))",
    ]
    .map(String::from)
    .to_vec()
}

/// Texts larger than a query may be.
fn too_large() -> Vec<String> {
    let or = |n: usize| {
        let terms: Vec<String> = (0..n).map(|i| format!("vcpu = {i}")).collect();
        format!("SELECT count(*) FROM vcpus WHERE {}", terms.join(" OR "))
    };
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        format!("SELECT {}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let mut texts = vec![
        or(600),
        or(2000),
        or(4000),
        or(2000).replace("OR", "AND"),
        or(2000).replace(" OR ", " || "),
    ];
    for n in [60, 600, 6000, 15_000] {
        texts.push(nested("(", "1", ")", n));
        texts.push(nested("NOT ", "true", "", n));
        texts.push(nested("- ", "1", "", n));
    }
    for n in [60, 600, 2000] {
        texts.push(nested("(SELECT ", "1", ")", n));
        texts.push(nested("CASE WHEN true THEN ", "1", " END", n));
        texts.push(nested("abs(", "1", ")", n));
        texts.push(nested("[", "1", "]", n));
        texts.push(nested("CAST(", "1", " AS BIGINT)", n));
    }
    for n in [300, 2000] {
        texts.push(vec!["SELECT 1"; n].join(" UNION ALL "));
        texts.push(vec!["SELECT 1"; n].join(" EXCEPT "));
        texts.push(format!("SELECT 1 FROM vcpus{}", ", vcpus".repeat(n)));
        texts.push(format!(
            "SELECT 1 FROM vcpus{}",
            " NATURAL JOIN vcpus".repeat(n)
        ));
        texts.push(format!("SELECT 1{}", " + 1".repeat(n * 3)));
    }
    texts.push(format!("SELECT '{}'", "x".repeat(100_000)));
    texts.push(format!("SELECT {}1", "-".repeat(66_000)));
    texts.push(format!("SELECT 1 WHERE 1 IN ({}1)", "1,".repeat(32_000)));
    texts.push(format!("VALUES {}(1)", "(1),".repeat(16_000)));
    texts.push(format!("SELECT {}1", "1,".repeat(30_000)));
    texts
}

/// What ends only at the deadline or the memory's limit.
fn endless() -> Vec<String> {
    let product = |n: usize| -> String {
        (0..n)
            .map(|i| format!("vcpus AS t{i}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let grow = |step: &str| {
        format!(
            "WITH RECURSIVE r AS (SELECT 'x' AS s UNION ALL SELECT {step} FROM r) SELECT max(length(s)) FROM r"
        )
    };
    let doubled = |n: usize| {
        let inner = format!("replace('{}', 'x', '{}')", "x".repeat(100), "x".repeat(100));
        (0..n).fold(inner, |s, _| {
            format!("replace({s}, 'x', '{}')", "x".repeat(100))
        })
    };
    vec![
        format!("SELECT count(DISTINCT t0.ts) FROM {}", product(12)),
        format!("SELECT * FROM {} ORDER BY t3.ready_ratio", product(12)),
        format!("SELECT string_agg(t0.vm_name, t1.vm_name) FROM {}", product(8)),
        format!("SELECT array_agg(t0.ts) FROM {}", product(8)),
        format!("SELECT sum(t0.run_ns) OVER (ORDER BY t1.ts) FROM {}", product(8)),
        format!("EXPLAIN ANALYZE SELECT count(DISTINCT t0.ts) FROM {}", product(12)),
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r".into(),
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT a.n FROM r a, r b) SELECT count(*) FROM r".into(),
        grow("s || s"),
        grow("concat(s, s, s)"),
        format!("SELECT length({})", doubled(4)),
        "SELECT arrow_cast('x', 'FixedSizeBinary(2147483647)')".into(),
    ]
}

/// Large or strange, but what they ask for can be had.
fn may_answer() -> Vec<String> {
    let long = "a".repeat(30_000);
    let or = |n: usize| {
        let terms: Vec<String> = (0..n).map(|i| format!("vcpu = {i}")).collect();
        format!("SELECT count(*) FROM vcpus WHERE {}", terms.join(" OR "))
    };
    vec![
        or(100),
        or(400),
        format!(
            "SELECT count(*) FROM vcpus WHERE vcpu IN ({}1)",
            "7,".repeat(5_000)
        ),
        format!(
            "SELECT count(*) FROM vcpus WHERE vm_id IN ({}'x')",
            "'abc',".repeat(4_000)
        ),
        format!("SELECT count(*) FROM (VALUES {}(1))", "(1),".repeat(4_000)),
        vec!["SELECT ts FROM vcpus"; 150].join(" UNION ALL "),
        vec!["SELECT ts FROM vcpus"; 60].join(" UNION "),
        format!("SELECT '{long}' ~ '(a+)+$'"),
        format!("SELECT regexp_replace('{long}', '(a|aa)+', 'b', 'g')"),
        "SELECT regexp_like(vm_name, '((a{100}){100}){100}') FROM vcpus".into(),
        "SELECT 'a' ~ '(((((((((a{30}){30}){30}){30}){30}){30}){30}){30}){30})'".into(),
        "SELECT vm_name LIKE '%_%_%_%_%_%_%_%_%_%_%' FROM vcpus LIMIT 1".into(),
        "SELECT power(10, 1000000)".into(),
        "SELECT factorial(20)".into(),
        "SELECT CAST('1e300' AS DOUBLE) * 1e300".into(),
        "SELECT TIMESTAMP '9999-12-31' + INTERVAL '100000' YEAR".into(),
        "SELECT * FROM information_schema.columns a, information_schema.columns b".into(),
        "SELECT * FROM information_schema.df_settings".into(),
        "SHOW ALL".into(),
        "SELECT version()".into(),
        "SELECT digest('x', 'sha512')".into(),
        "SELECT approx_percentile_cont(ready_ratio, 0.5, 100000) FROM vcpus".into(),
        "SELECT * FROM vcpus CROSS JOIN vcpus b LIMIT 10".into(),
        "SELECT translate('aaaa', 'a', 'bbbbbbbb')".into(),
        "SELECT encode('x', 'base64')".into(),
    ]
}

//! A driver: both protocols, types both ways, errors, cancelling.

use std::time::{Duration, SystemTime};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::Open;
use crate::tests::harness::{PATIENCE, T0};

async fn simple(client: &Client, text: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(text)
        .await
        .unwrap_or_else(|e| panic!("{text}: {e:?}"));
    let rows = messages.iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|i| row.get(i).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    });
    rows.collect()
}

async fn code(client: &Client, text: &str) -> SqlState {
    let error = client.simple_query(text).await.expect_err(text);
    error.code().cloned().unwrap_or_else(|| panic!("{error:?}"))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(T0.unsigned_abs()) + Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_parameters_and_columns() {
    let open = Open::start().await;
    let client = open.client().await;
    let sql = "SELECT vm_name, ts, run_ns, ready_ratio, ready_hist, ready_wake_ns, ready_ratio > 0.1 AS high \
         FROM vcpus WHERE vcpu = $1 AND ready_ratio < $2 AND vm_name = $3 AND ts >= $4 ORDER BY ts LIMIT $5";
    let statement = client.prepare(sql).await.unwrap();
    assert_eq!(
        statement.params(),
        [
            Type::INT8,
            Type::FLOAT8,
            Type::TEXT,
            Type::TIMESTAMPTZ,
            Type::INT8
        ]
    );
    let columns: Vec<_> = statement
        .columns()
        .iter()
        .map(|c| c.type_().clone())
        .collect();
    let expected = [
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::INT8,
        Type::FLOAT8,
        Type::BYTEA,
        Type::INT8,
        Type::BOOL,
    ];
    assert_eq!(columns, expected);
    let rows = client
        .query(&statement, &[&2_i64, &0.9_f64, &"one", &at(40), &3_i64])
        .await
        .unwrap();
    assert_eq!(rows.len(), 3);
    let first = &rows[0];
    assert_eq!(first.get::<_, &str>(0), "one");
    assert_eq!(first.get::<_, SystemTime>(1), at(40));
    assert_eq!(first.get::<_, i64>(2), 4_000_000_002);
    assert!((first.get::<_, f64>(3) - 0.5).abs() < f64::EPSILON);
    assert!(!first.get::<_, &[u8]>(4).is_empty());
    assert_eq!(first.get::<_, Option<i64>>(5), None);
    assert!(first.get::<_, bool>(6));
    let none = client
        .query(
            &statement,
            &[&2_i64, &0.9_f64, &None::<&str>, &at(40), &3_i64],
        )
        .await
        .unwrap();
    assert!(none.is_empty(), "nothing equals NULL");
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_as_they_went() {
    let open = Open::start().await;
    let client = open.client().await;
    for text in [
        "",
        "it's",
        "\\",
        "\\'",
        "''",
        "\\' OR true --",
        "'; DROP TABLE vms; --",
        "$1 $$ $2",
        "line\nand\ttab\r",
        "𝔘ñí",
        "%_",
    ] {
        let row = client.query_one("SELECT $1::text", &[&text]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), text);
    }
    for number in [0, -1, i64::MIN, i64::MAX] {
        let row = client
            .query_one("SELECT $1::bigint", &[&number])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), number);
    }
    for number in [
        0.1,
        -1.5e300,
        5e-324,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ] {
        let row = client
            .query_one("SELECT $1::double precision", &[&number])
            .await
            .unwrap();
        assert_eq!(row.get::<_, f64>(0).to_bits(), number.to_bits());
    }
    let bytes = (0..=255).collect::<Vec<u8>>();
    let row = client
        .query_one("SELECT $1::bytea", &[&bytes])
        .await
        .unwrap();
    assert_eq!(row.get::<_, Vec<u8>>(0), bytes);
    let row = client
        .query_one("SELECT $1::boolean", &[&true])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    let row = client
        .query_one(
            "SELECT $1::text, $2::bigint",
            &[&None::<String>, &None::<i64>],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), None);
    assert_eq!(row.get::<_, Option<i64>>(1), None);
    let rows = client
        .query(
            "SELECT DISTINCT vcpu FROM vcpus WHERE vcpu = ANY($1::bigint[])",
            &[&vec![1_i64, 3, 9]],
        )
        .await;
    assert_eq!(rows.map(|r| r.len()).map_err(|e| format!("{e:?}")), Ok(2));
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_give_their_rows_in_parts() {
    let open = Open::start().await;
    let mut client = open.client().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction
        .bind(
            "SELECT ts FROM vcpus WHERE vcpu = $1 ORDER BY ts",
            &[&0_i64],
        )
        .await
        .unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 4).await.unwrap();
        sizes.push(rows.len());
        if rows.len() < 4 {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 2]);
    transaction.commit().await.unwrap();
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_codes_and_the_session_goes_on() {
    let open = Open::start().await;
    let client = open.client().await;
    for (text, expected) in [
        ("SELECT 1 FROM nothing", SqlState::UNDEFINED_TABLE),
        ("SELECT redy_ns FROM vcpus", SqlState::UNDEFINED_COLUMN),
        ("SELECT nofunction(1)", SqlState::UNDEFINED_FUNCTION),
        ("SELECT ) FROM", SqlState::SYNTAX_ERROR),
        ("DELETE FROM vms", SqlState::READ_ONLY_SQL_TRANSACTION),
        (
            "COPY vms TO '/tmp/headroom-copy'",
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ),
        (
            "SELECT 1; DROP TABLE vms",
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ),
        (
            "SET datafusion.execution.batch_size = 1",
            SqlState::UNDEFINED_OBJECT,
        ),
        ("SHOW nothing_like_it", SqlState::UNDEFINED_OBJECT),
        (
            "SET client_encoding = 'LATIN1'",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
    ] {
        assert_eq!(code(&client, text).await, expected, "{text}");
        let again = client.query("SELECT 1 FROM nothing_else", &[]).await;
        assert_eq!(again.unwrap_err().code(), Some(&SqlState::UNDEFINED_TABLE));
        assert_eq!(simple(&client, "SELECT 7").await, [[Some("7".into())]]);
    }
    client.batch_execute("BEGIN").await.unwrap();
    code(&client, "SELECT 1 FROM nothing").await;
    assert_eq!(
        code(&client, "SELECT 1").await,
        SqlState::IN_FAILED_SQL_TRANSACTION
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    client
        .batch_execute("SET application_name = 'a'; SET TIME ZONE 'UTC'; RESET ALL; DISCARD ALL; ; SAVEPOINT a")
        .await
        .unwrap();
    client.batch_execute("").await.unwrap();
    simple(&client, "SET statement_timeout = 1").await;
    let slow = "SELECT count(*) FROM vcpus a, vcpus b, vcpus c, vcpus d, vcpus e, vcpus f, vcpus g, vcpus h \
         WHERE a.run_ns + b.run_ns + c.run_ns + d.run_ns + e.run_ns + f.run_ns + g.run_ns + h.run_ns > 1";
    assert_eq!(code(&client, slow).await, SqlState::QUERY_CANCELED);
    open.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_cancelled() {
    let open = Open::start().await;
    let client = open.client().await;
    let token = client.cancel_token();
    let slow = "SELECT count(*) FROM vcpus a, vcpus b, vcpus c, vcpus d, vcpus e, vcpus f, vcpus g, vcpus h \
         WHERE a.run_ns + b.run_ns + c.run_ns + d.run_ns + e.run_ns + f.run_ns + g.run_ns + h.run_ns > 1";
    let query = client.simple_query(slow);
    tokio::pin!(query);
    let error = tokio::time::timeout(PATIENCE, async {
        loop {
            tokio::select! {
                done = &mut query => break done.unwrap_err(),
                // It may come before the query began.
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    token.cancel_query(NoTls).await.unwrap();
                }
            }
        }
    });
    let error = error.await.expect("cancelled");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(
        error.to_string().contains("user request") || format!("{error:?}").contains("user request")
    );
    assert_eq!(simple(&client, "SELECT 7").await, [[Some("7".into())]]);
    open.collector.stop().await;
}

/// What its plugin sends (`postgresMetaQuery.ts` and the macros of
/// `pkg/tsdb/grafana-postgresql-datasource/macros.go`, Grafana 12).
#[tokio::test(flavor = "multi_thread")]
async fn grafana_asks() {
    let open = Open::start().await;
    let client = open.client().await;
    let version = "SELECT current_setting('server_version_num')::int/100 as version";
    assert_eq!(simple(&client, version).await, [[Some("1600".into())]]);
    let timescale = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";
    assert!(simple(&client, timescale).await.is_empty());
    let visible = "quote_ident(table_schema) IN ( SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END \
        FROM generate_series( array_lower(string_to_array(current_setting('search_path'),','),1), \
        array_upper(string_to_array(current_setting('search_path'),','),1) ) as i, \
        string_to_array(current_setting('search_path'),',') s )";
    let tables = format!(
        "SELECT CASE WHEN {visible} THEN quote_ident(table_name) \
         ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" \
         FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog') \
         ORDER BY CASE WHEN {visible} THEN 0 ELSE 1 END, 1"
    );
    let tables = simple(&client, &tables).await;
    assert!(tables.contains(&vec![Some("vms".into())]), "{tables:?}");
    let columns = format!(
        "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns \
         WHERE CASE WHEN array_length(parse_ident('vms'),1) = 2 \
         THEN quote_ident(table_schema) = (parse_ident('vms'))[1] AND quote_ident(table_name) = (parse_ident('vms'))[2] \
         ELSE quote_ident(table_name) = 'vms' AND {visible} END"
    );
    let columns = simple(&client, &columns).await;
    let ts = vec![Some("ts".into()), Some("timestamp with time zone".into())];
    assert!(columns.contains(&ts), "{columns:?}");
    let udt = "SELECT udt_name FROM information_schema.columns WHERE table_name = 'vms' AND column_name = 'ts'";
    assert_eq!(simple(&client, udt).await, [[Some("timestamptz".into())]]);
    let (from, to) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00.5Z");
    for time in [
        "floor(extract(epoch from ts)/60)*60 AS \"time\"",
        "extract(epoch from ts) AS \"time\"",
        "time_bucket('60.000s', ts) AS \"time\"",
        "ts AS \"time\"",
    ] {
        let panel = format!(
            "SELECT {time}, vm_name AS metric, avg(ready_ratio) AS value FROM vcpus \
             WHERE ts BETWEEN '{from}' AND '{to}' AND ts >= to_timestamp(1767225600) GROUP BY 1, 2 ORDER BY 1"
        );
        assert!(!simple(&client, &panel).await.is_empty(), "{panel}");
        assert!(
            !client.query(&panel, &[]).await.unwrap().is_empty(),
            "{panel}"
        );
    }
    let buckets = "SELECT time_bucket('60.000s', ts) FROM vcpus GROUP BY 1 ORDER BY 1 LIMIT 1";
    assert_eq!(
        simple(&client, buckets).await,
        [[Some("2026-01-01 00:00:00.000000+00".into())]]
    );
    open.collector.stop().await;
}

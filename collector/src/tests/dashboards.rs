//! The dashboards of `dashboards/`, as Grafana would load and ask them: every
//! query of every panel, variable and annotation, over the PostgreSQL port of
//! a collector that holds rows of every table.

mod board;
mod fleet;
mod form;
mod grafana;
mod port;
mod timing;

use std::collections::BTreeSet;
use std::path::Path;

use board::{Board, Query};
use grafana::{Range, Value, Variables};
use port::{Answer, Port, Type};

use super::harness::{Collector, raw};
use crate::config::Raw;
use crate::rollup::Roller;
use crate::store::tests::open;

/// Windows that the fleet has: a quarter of an hour.
const WINDOWS: i64 = 90;

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_dashboard_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, end) = filled(dir.path()).await;
    let port = Port::open(dir.path()).await;
    let mut wrong = Vec::new();
    for board in board::all() {
        for (range, last) in ranges(end) {
            let variables = values(&port, &board, (&range, last), &mut wrong).await;
            // Other queries send the same text over a day and over months.
            let long = range.to_s - range.from_s > 100_000;
            let asked = |q: &&Query| !long || q.sql.contains("${rows:raw}");
            for query in board.queries.iter().filter(asked) {
                let found = check(&port, query, &variables, (&range, last)).await;
                wrong.extend(found.err().map(|e| format!("{}: {e}", query.place)));
            }
        }
    }
    drop(port);
    collector.stop().await;
    let wrong: BTreeSet<String> = wrong.into_iter().collect();
    let lines: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// The figures on the panels are those of the rows, and what nobody measured
/// is no 0.
#[tokio::test(flavor = "multi_thread")]
async fn panels_show_what_the_rows_tell() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, end) = filled(dir.path()).await;
    let port = Port::open(dir.path()).await;
    let (range, _) = ranges(end)[0];
    let boards = board::all();
    let rows = Value::One("/* windows */".into());
    let known = |name: &str, value: &str| {
        let value = Value::One(value.into());
        Variables::from([("rows".into(), rows.clone()), (name.into(), value)])
    };
    let ask = async |uid: &str, panel: &str, variables: &Variables| {
        let place = format!("{uid} / {panel} A");
        let queries = boards.iter().flat_map(|b| &b.queries);
        let query = queries.clone().find(|q| q.place == place).unwrap();
        let sql = grafana::expand(&query.sql, variables, &range).unwrap();
        port.ask(&sql).await.unwrap()
    };
    for host in fleet::HOSTS {
        for (vm, ready) in fleet::READY.iter().enumerate() {
            let chosen = known("vm", &fleet::vm_id(host, vm));
            let shown = ask("headroom-vm", "Ready", &chosen).await.number("ready");
            assert!(
                (shown.unwrap() - ready).abs() < 1e-9,
                "{shown:?} for {ready}"
            );
        }
        let shown = ask("headroom-host", "Overcommit", &known("host", host)).await;
        assert_eq!(shown.number("overcommit"), Some(1.5));
    }
    let worst = ask(
        "headroom-fleet",
        "Worst VMs",
        &known("host", fleet::HOSTS[1]),
    )
    .await;
    let vms: Vec<_> = worst.rows.iter().map(|r| r[0].as_deref()).collect();
    assert_eq!(vms, [Some("db"), Some("it's"), Some("web")]);
    let absent = known("vm", "absent");
    let board = boards.iter().find(|b| b.uid == "headroom-vm").unwrap();
    for query in &board.queries {
        let sql = grafana::expand(&query.sql, &absent, &range).unwrap();
        let told = port.ask(&sql).await.unwrap().rows;
        let nothing = told.iter().flatten().all(Option::is_none);
        assert!(nothing, "{}: {told:?} of a VM that is not", query.place);
    }
    drop(port);
    collector.stop().await;
}

/// A collector with a quarter of an hour of both hosts, rolled up, and the
/// time of the last window, µs since 1970 UTC.
async fn filled(dir: &Path) -> (Collector, i64) {
    let settings = || Raw {
        pg_listen: "127.0.0.1:0".into(),
        ..raw(dir)
    };
    let collector = Collector::start(settings()).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let end = (now - now % 10) * 1_000_000;
    for host in 0..fleet::HOSTS.len() {
        let mut sender = collector.sender().await;
        sender.push_all(&fleet::batches(host, end, WINDOWS)).await;
    }
    // Stopping writes the rows to files, and roll-ups are made of files.
    collector.stop().await;
    let opened = open(dir).await;
    let later = end + 72 * 3_600_000_000;
    let mut roller = Roller::default();
    assert!(roller.roll_all(&opened.store, later, &|| false).await > 0);
    drop(opened);
    (Collector::start(settings()).await, end)
}

/// Time ranges, and whether each variable stands at its last value instead of
/// its first. The long ones end an hour later: a step has the time of its end.
fn ranges(end: i64) -> [(Range, bool); 4] {
    let range = |to_s: i64, length: i64, interval_s, timescale| Range {
        from_s: to_s - length,
        to_s,
        interval_s,
        timescale,
    };
    let (now, later) = (end / 1_000_000, end / 1_000_000 + 3600);
    let day = 86_400;
    [
        (range(now, 900, 30, false), false),
        (range(now, day, 120, true), true),
        (range(later, 7 * day, 600, true), false),
        (range(later, 60 * day, 3600, false), true),
    ]
}

/// A choice of every variable: what Grafana takes first, or the last that the
/// variable offers.
async fn values(
    port: &Port,
    board: &Board,
    (range, last): (&Range, bool),
    wrong: &mut Vec<String>,
) -> Variables {
    let mut chosen = Variables::new();
    for variable in &board.variables {
        let mut offered = variable.options.clone();
        if let Some(query) = &variable.query {
            match options(port, query, &chosen, range).await {
                Ok(found) => offered = found,
                Err(e) => wrong.push(format!("{}: {e}", query.place)),
            }
        }
        let Some((a, z)) = offered.first().zip(offered.last()) else {
            wrong.push(format!("{}: {} offers nothing", board.uid, variable.name));
            continue;
        };
        let value = match (&variable.all_value, variable.multi) {
            (_, true) if last => Value::Many(vec![a.clone(), z.clone()]),
            (Some(all), _) if !last => Value::Custom(all.clone()),
            _ => Value::One(if last { z.clone() } else { a.clone() }),
        };
        chosen.insert(variable.name.clone(), value);
    }
    chosen
}

/// Values of a variable: column `__value`, else the only column.
async fn options(
    port: &Port,
    query: &Query,
    known: &Variables,
    range: &Range,
) -> Result<Vec<String>, String> {
    let answer = port
        .ask(&grafana::expand(&query.sql, known, range)?)
        .await?;
    let named = |name: &str| answer.columns.iter().position(|(n, _)| n == name);
    let column = match (named("__text"), named("__value")) {
        (Some(text), Some(value)) => {
            let texts: BTreeSet<_> = answer.rows.iter().map(|r| &r[text]).collect();
            // Grafana keeps the first of equal texts: the others can't be chosen.
            if texts.len() < answer.rows.len() {
                return Err("two values have one text".into());
            }
            value
        }
        _ if answer.columns.len() == 1 => 0,
        _ => return Err("neither __text and __value nor one column".into()),
    };
    Ok(answer
        .rows
        .iter()
        .filter_map(|r| r[column].clone())
        .collect())
}

async fn check(
    port: &Port,
    query: &Query,
    variables: &Variables,
    (range, extended): (&Range, bool),
) -> Result<(), String> {
    let sql = grafana::expand(&query.sql, variables, range)?;
    let answer = port.ask(&sql).await.map_err(|e| format!("{e}\n{sql}"))?;
    if extended && port.count(&sql).await? != answer.rows.len() {
        return Err(format!("other rows by the extended protocol\n{sql}"));
    }
    if answer.rows.is_empty() {
        return Err(format!("no rows\n{sql}"));
    }
    for name in &query.columns {
        if !answer.columns.iter().any(|(n, _)| n == name) {
            return Err(format!("an override names {name}, which is no column"));
        }
    }
    match query.series {
        true => is_series(&answer),
        false => has_value(&answer),
    }
}

/// What Grafana needs to turn a long table into series: a time that rises,
/// at least one number, at most one text, and one value for each series and
/// time.
fn is_series(answer: &Answer) -> Result<(), String> {
    let time = answer.columns.iter().position(|(n, _)| n == "time");
    let time = time.ok_or("no column time")?;
    let mut texts = Vec::new();
    let mut numbers = 0;
    for (i, (name, kind)) in answer.columns.iter().enumerate() {
        match kind {
            _ if i == time => {}
            Type::Number => numbers += 1,
            Type::Text if name == "metric" => texts.push(i),
            other => return Err(format!("{name} is {other:?}: no series, no label")),
        }
    }
    if numbers == 0 || texts.len() > 1 || (texts.len() == 1 && numbers > 1) {
        return Err(format!("{numbers} values and {} labels", texts.len()));
    }
    let keys: Vec<_> = (answer.rows.iter())
        .map(|r| (r[time].as_ref(), texts.first().map(|t| &r[*t])))
        .collect();
    if keys.iter().any(|(t, _)| t.is_none()) {
        return Err("a row without a time".into());
    }
    if !keys.is_sorted_by(|a, b| a.0 <= b.0) {
        return Err("times do not rise".into());
    }
    if keys.windows(2).any(|w| w[0] == w[1]) {
        return Err("two values of one series at one time".into());
    }
    has_value(answer)
}

/// Values are there: a column of NULLs alone asks the wrong thing, where rows
/// are many enough that one is known.
fn has_value(answer: &Answer) -> Result<(), String> {
    let few = answer.rows.len() < 5;
    if few && answer.rows.iter().flatten().any(Option::is_some) {
        return Ok(());
    }
    for (i, (name, _)) in answer.columns.iter().enumerate() {
        if answer.rows.iter().all(|r| r[i].is_none()) {
            return Err(format!("column {name} has no value in any row"));
        }
    }
    Ok(())
}

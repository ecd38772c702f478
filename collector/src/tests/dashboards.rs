//! The dashboards of `dashboards/`, as Grafana would load and ask them: every
//! query of every panel, variable and annotation, over the PostgreSQL port of
//! a collector that holds rows of every table.

mod board;
mod fleet;
mod form;
mod grafana;
mod port;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use board::{Board, Query};
use grafana::{Range, Value, Variables};
use port::{Answer, Port, Type};

use super::harness::{Collector, raw};

/// Windows that the fleet has: half an hour.
const WINDOWS: i64 = 180;

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_every_dashboard_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, end) = filled(dir.path()).await;
    let port = Port::open(dir.path()).await;
    let mut wrong = Vec::new();
    let mut slowest = Vec::new();
    for board in board::all() {
        for range in ranges(end) {
            for variables in values(&port, &board, &range, &mut wrong).await {
                for query in &board.queries {
                    let began = Instant::now();
                    let found = check(&port, query, &variables, &range).await;
                    slowest.push((began.elapsed(), query.place.clone()));
                    wrong.extend(found.err().map(|e| format!("{}: {e}", query.place)));
                }
            }
        }
    }
    print_slowest(slowest);
    drop(port);
    collector.stop().await;
    let wrong: BTreeSet<String> = wrong.into_iter().collect();
    let lines: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", lines.len(), lines.join("\n"));
}

/// A collector with half an hour of both hosts, and the time of the last
/// window, µs since 1970 UTC.
async fn filled(dir: &std::path::Path) -> (Collector, i64) {
    let mut settings = raw(dir);
    settings.pg_listen = "127.0.0.1:0".into();
    let collector = Collector::start(settings).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let end = (now - now % 10) * 1_000_000;
    for host in 0..fleet::HOSTS.len() {
        let mut sender = collector.sender().await;
        sender.push_all(&fleet::batches(host, end, WINDOWS)).await;
    }
    (collector, end)
}

/// The last quarter of an hour and the last day, each with a way to group.
fn ranges(end: i64) -> [Range; 2] {
    let to_s = end / 1_000_000;
    let range = |length: i64, interval_s, timescale| Range {
        from_s: to_s - length,
        to_s,
        interval_s,
        timescale,
    };
    [range(900, 30, false), range(86_400, 120, true)]
}

/// Two choices of every variable: what Grafana takes first, and the last that
/// the variable offers.
async fn values(
    port: &Port,
    board: &Board,
    range: &Range,
    wrong: &mut Vec<String>,
) -> [Variables; 2] {
    let (mut first, mut last) = (Variables::new(), Variables::new());
    for variable in &board.variables {
        let mut offered = variable.options.clone();
        if let Some(query) = &variable.query {
            match options(port, query, &first, range).await {
                Ok(found) => offered = found,
                Err(e) => wrong.push(format!("{}: {e}", query.place)),
            }
        }
        let Some((a, z)) = offered.first().zip(offered.last()) else {
            wrong.push(format!("{}: {} offers nothing", board.uid, variable.name));
            continue;
        };
        let all = variable.all_value.clone().map(Value::Custom);
        let begin = all.unwrap_or_else(|| Value::One(a.clone()));
        let end = match variable.multi {
            true => Value::Many(vec![a.clone(), z.clone()]),
            false => Value::One(z.clone()),
        };
        first.insert(variable.name.clone(), begin);
        last.insert(variable.name.clone(), end);
    }
    [first, last]
}

/// Values of a variable: column `__value`, else the only column.
async fn options(
    port: &Port,
    query: &Query,
    known: &Variables,
    range: &Range,
) -> Result<Vec<String>, String> {
    let answer = port.ask(&grafana::expand(&query.sql, known, range)?).await?;
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
    Ok(answer.rows.iter().filter_map(|r| r[column].clone()).collect())
}

async fn check(
    port: &Port,
    query: &Query,
    variables: &Variables,
    range: &Range,
) -> Result<(), String> {
    let sql = grafana::expand(&query.sql, variables, range)?;
    let answer = port.ask(&sql).await.map_err(|e| format!("{e}\n{sql}"))?;
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
        .map(|r| (answer.instant(&r[time]), texts.first().map(|t| &r[*t])))
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

/// At least one value is there: a panel of NULLs alone asks the wrong thing.
fn has_value(answer: &Answer) -> Result<(), String> {
    for (i, (name, _)) in answer.columns.iter().enumerate() {
        if answer.rows.iter().all(|r| r[i].is_none()) {
            return Err(format!("column {name} has no value in any row"));
        }
    }
    Ok(())
}

fn print_slowest(mut all: Vec<(Duration, String)>) {
    all.sort();
    let total: Duration = all.iter().map(|(d, _)| *d).sum();
    let out = format!("{} queries in {total:?}; slowest:\n", all.len());
    let slow = all.iter().rev().take(5);
    let slow: String = slow.map(|(d, place)| format!("  {d:?} {place}\n")).collect();
    let _ = std::io::Write::write_all(&mut std::io::stderr(), (out + &slow).as_bytes());
}

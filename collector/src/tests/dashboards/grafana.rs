//! What Grafana makes of a query before it sends it.
//!
//! First its page replaces variables (`$vm`, `${vm:sqlstring}`) and leaves
//! what is no variable; then its server replaces `$__interval` and the macros
//! of the PostgreSQL data source. The rules are those of Grafana 11 and 12:
//! `pkg/tsdb/grafana-postgresql-datasource/{macros,sqleng/sql_engine}.go` and
//! the format registry of `@grafana/scenes`.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a variable stands for.
#[derive(Clone, Debug)]
pub enum Value {
    One(String),
    Many(Vec<String>),
    /// "All" of a variable that says what that is, inserted as it is.
    Custom(String),
}

/// The time picker and the width of the panel.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub from_s: i64,
    pub to_s: i64,
    pub interval_s: i64,
    /// Data source setting "TimescaleDB".
    pub timescale: bool,
}

pub type Variables = BTreeMap<String, Value>;

/// The text that reaches the server.
pub fn expand(sql: &str, variables: &Variables, range: &Range) -> Result<String, String> {
    let sql = replace_variables(sql, variables)?;
    let interval = format_interval(range.interval_s);
    let sql = sql
        .replace("$__interval_ms", &(range.interval_s * 1000).to_string())
        .replace("$__interval", &interval)
        .replace("$__unixEpochFrom()", &range.from_s.to_string())
        .replace("$__unixEpochTo()", &range.to_s.to_string());
    replace_macros(&sql, range)
}

/// Only `$name`, `${name}` and `${name:format}` of known variables change.
fn replace_variables(sql: &str, variables: &Variables) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), sql);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, format, length) = match rest.strip_prefix('{') {
            Some(inner) => {
                let end = inner.find('}').ok_or("no } after ${")?;
                let (name, format) = inner[..end].split_once(':').unwrap_or((&inner[..end], ""));
                (name, format, end + 2)
            }
            None => (word(rest), "", word(rest).len()),
        };
        match variables.get(name) {
            Some(value) => out.push_str(&formatted(value, format)?),
            None if length > word(rest).len() => return Err(format!("no variable {name}")),
            None => {
                out.push('$');
                out.push_str(&rest[..length]);
            }
        }
        rest = &rest[length..];
    }
    Ok(out + rest)
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn formatted(value: &Value, format: &str) -> Result<String, String> {
    let quoted = |v: &String| format!("'{}'", v.replace('\'', "''"));
    match (value, format) {
        (Value::Custom(v), _) => Ok(v.clone()),
        (Value::One(v), "sqlstring") => Ok(quoted(v)),
        (Value::Many(v), "sqlstring" | "") => {
            Ok(v.iter().map(quoted).collect::<Vec<_>>().join(","))
        }
        // Without a format Grafana escapes quotes and adds none.
        (Value::One(v), "") => Ok(v.replace('\'', "''")),
        (Value::One(v), "raw") => Ok(v.clone()),
        (_, other) => Err(format!("format {other} is not written down here")),
    }
}

/// Calls by the pattern `\$([_a-zA-Z0-9]+)\(([^\)]*)\)`: no brackets within.
fn replace_macros(sql: &str, range: &Range) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), sql);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = word(rest);
        let call = rest[name.len()..].strip_prefix('(');
        let Some((arguments, after)) = call.and_then(|c| c.split_once(')')) else {
            return Err(format!("${name} is neither variable nor macro"));
        };
        let arguments: Vec<&str> = arguments.split(',').map(|a| a.trim_matches(' ')).collect();
        // `$__timeGroup(…),` names its column, as before Grafana 5.3.
        let alias = name == "__timeGroup" && after.starts_with(',');
        out.push_str(&evaluate(name, &arguments, range)?);
        out.push_str(if alias { " AS \"time\"" } else { "" });
        rest = after;
    }
    Ok(out + rest)
}

fn evaluate(name: &str, arguments: &[&str], range: &Range) -> Result<String, String> {
    let column = arguments.first().copied().unwrap_or_default();
    let (from, to) = (rfc3339(range.from_s), rfc3339(range.to_s));
    let (from_s, to_s) = (range.from_s, range.to_s);
    Ok(match name {
        "__time" => format!("{column} AS \"time\""),
        "__timeEpoch" => format!("extract(epoch from {column}) as \"time\""),
        "__timeFilter" => format!("{column} BETWEEN '{from}' AND '{to}'"),
        "__timeFrom" => format!("'{from}'"),
        "__timeTo" => format!("'{to}'"),
        "__timeGroup" => time_group(arguments, range)?,
        "__timeGroupAlias" => format!("{} AS \"time\"", time_group(arguments, range)?),
        "__unixEpochFilter" => format!("{column} >= {from_s} AND {column} <= {to_s}"),
        "__unixEpochNanoFilter" => {
            format!("{column} >= {from_s}000000000 AND {column} <= {to_s}000000000")
        }
        "__unixEpochNanoFrom" => format!("{from_s}000000000"),
        "__unixEpochNanoTo" => format!("{to_s}000000000"),
        "__unixEpochGroup" => epoch_group(arguments)?,
        "__unixEpochGroupAlias" => format!("{} AS \"time\"", epoch_group(arguments)?),
        other => return Err(format!("unknown macro {other:?}")),
    })
}

fn time_group(arguments: &[&str], range: &Range) -> Result<String, String> {
    let (column, step) = grouped(arguments)?;
    Ok(if range.timescale {
        format!("time_bucket('{step}.000s',{column})")
    } else {
        format!("floor(extract(epoch from {column})/{step})*{step}")
    })
}

fn epoch_group(arguments: &[&str]) -> Result<String, String> {
    let (column, step) = grouped(arguments)?;
    Ok(format!("floor(({column})/{step})*{step}"))
}

fn grouped<'a>(arguments: &[&'a str]) -> Result<(&'a str, i64), String> {
    match arguments {
        // A third argument fills gaps after the answer; it changes no text.
        [column, interval] | [column, interval, _] => {
            Ok((column, parse_interval(interval.trim_matches('\''))?))
        }
        _ => Err("a group needs time column and interval".into()),
    }
}

/// `10s`, `1m`, `2h`, `1d`, `1w` in seconds.
fn parse_interval(text: &str) -> Result<i64, String> {
    let wrong = || format!("error parsing interval {text}");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: i64 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| wrong())?;
    let (_, seconds) = UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
    Ok(number * seconds)
}

const UNITS: [(char, i64); 5] = [
    ('w', 604_800),
    ('d', 86_400),
    ('h', 3600),
    ('m', 60),
    ('s', 1),
];

fn format_interval(seconds: i64) -> String {
    let units = UNITS.iter().filter(|(u, _)| *u != 'w');
    let unit = units.clone().find(|(_, s)| seconds >= *s);
    let (unit, length) = unit.unwrap_or(&('s', 1));
    format!("{}{unit}", seconds / length)
}

fn rfc3339(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    time.format(&Rfc3339).unwrap()
}

#[test]
fn macros_become_what_grafana_makes_of_them() {
    let vms = Value::Many(vec!["a".into(), "it's".into()]);
    let all = Value::Custom("host".into());
    let table = Value::One("vms_5m".into());
    let variables = [("vm", vms), ("host", all), ("t", table)].map(|(n, v)| (n.to_string(), v));
    let range = Range {
        from_s: 1_700_000_000,
        to_s: 1_700_003_600,
        interval_s: 120,
        timescale: false,
    };
    let expand = |sql: &str, range: &Range| expand(sql, &variables.clone().into(), range).unwrap();
    let asked = "SELECT $__timeGroupAlias(ts,$__interval), $__timeGroup(ts, '1h'), 1 FROM ${t:raw} \
        WHERE $__timeFilter(ts) AND vm_id IN (${vm:sqlstring}) AND host IN (${host:sqlstring}) \
        AND x > $__interval_ms AND y < $__unixEpochTo() AND z = $__timeFrom()";
    let sent = "SELECT floor(extract(epoch from ts)/120)*120 AS \"time\", \
        floor(extract(epoch from ts)/3600)*3600 AS \"time\", 1 FROM vms_5m \
        WHERE ts BETWEEN '2023-11-14T22:13:20Z' AND '2023-11-14T23:13:20Z' \
        AND vm_id IN ('a','it''s') AND host IN (host) \
        AND x > 120000 AND y < 1700003600 AND z = '2023-11-14T22:13:20Z'";
    assert_eq!(expand(asked, &range), sent);
    let timescale = Range {
        timescale: true,
        ..range
    };
    let bucket = expand("$__timeGroup(ts, $__interval)", &timescale);
    assert_eq!(bucket, "time_bucket('120.000s',ts)");
}

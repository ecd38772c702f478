//! What Grafana, and whoever looks at them, needs of the dashboards' files.

use std::collections::BTreeSet;

use serde_json::Value;

use super::board::{self, Board, list, panels, text};

#[test]
fn dashboards_are_whole() {
    let boards = board::all();
    assert_eq!(boards.len(), 8);
    let uids: BTreeSet<_> = boards.iter().map(|b| b.uid.as_str()).collect();
    assert_eq!(uids.len(), boards.len(), "a uid stands twice");
    for board in &boards {
        let (uid, json) = (&board.uid, &board.json);
        assert!(uid.starts_with("headroom-") && uid.len() <= 40, "{uid}");
        // 39 is of Grafana 10.4; 11 and 12 migrate it themselves.
        assert_eq!(json["schemaVersion"], 39, "{uid}");
        assert!(json["id"].is_null(), "{uid}: an id belongs to one Grafana");
        assert!(!text(&json["title"]).is_empty() && !text(&json["description"]).is_empty());
        let ids: BTreeSet<_> = list(&json["panels"]).map(|p| p["id"].as_u64()).collect();
        assert_eq!(ids.len(), list(&json["panels"]).count(), "{uid}: panel ids");
        panels(json).for_each(|panel| assert_panel(uid, panel));
        assert_no_overlap(uid, json);
        assert_data_sources(uid, json);
        for link in links(json) {
            assert_link(&boards, uid, &link);
        }
    }
}

fn assert_panel(uid: &str, panel: &Value) {
    let place = format!("{uid} / {}", text(&panel["title"]));
    assert!(
        text(&panel["description"]).len() > 20,
        "{place}: description"
    );
    let defaults = &panel["fieldConfig"]["defaults"];
    assert!(!text(&defaults["unit"]).is_empty(), "{place}: unit");
    // No data shows as such.
    assert_eq!(defaults["noValue"], "n/a", "{place}");
    for target in list(&panel["targets"]) {
        let sql = text(&target["rawSql"]);
        // A quota that can't be told apart took no time of the sum; everywhere
        // else an unavailable value must stay one.
        let filled = sql
            .replace("coalesce(throttled_ns, 0)", "")
            .replace("coalesce(tenant,", "");
        assert!(
            !filled.to_lowercase().contains("coalesce("),
            "{place}: {sql}"
        );
        assert!(
            !sql.contains("now()"),
            "{place} looks at the clock, not at the time range"
        );
        let wanted = match text(&panel["type"]).as_str() {
            "timeseries" => "time_series",
            _ => "table",
        };
        assert_eq!(target["format"], wanted, "{place}");
    }
}

fn assert_no_overlap(uid: &str, json: &Value) {
    let mut taken = BTreeSet::new();
    for panel in list(&json["panels"]) {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{uid}: panel beyond the edge");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{uid}: panels overlap at {x}, {y}");
            }
        }
    }
}

/// Only the one that the reader chose, so that no file names one of ours.
fn assert_data_sources(uid: &str, json: &Value) {
    let chosen = serde_json::json!({
        "type": "grafana-postgresql-datasource", "uid": "${datasource}",
    });
    let own = serde_json::json!({ "type": "grafana", "uid": "-- Grafana --" });
    let mut found = Vec::new();
    visit(json, &mut |key, value| {
        if key == "datasource" {
            found.push(value.clone());
        }
    });
    assert!(found.len() > 10, "{uid}");
    assert!(found.iter().all(|d| *d == chosen || *d == own), "{uid}");
    let first = &json["templating"]["list"][0];
    assert_eq!(first["name"], "datasource", "{uid}");
    assert_eq!(first["query"], "grafana-postgresql-datasource", "{uid}");
}

/// URLs of the dashboard's panels and cells.
fn links(json: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit(json, &mut |key, value| {
        if key == "url" && !text(value).is_empty() {
            found.push(text(value));
        }
    });
    found
}

/// A link leads to one of the dashboards and sets variables that it has.
fn assert_link(boards: &[Board], from: &str, url: &str) {
    let (path, query) = url.split_once('?').unwrap();
    let uid = path.strip_prefix("/d/").unwrap();
    let target = boards.iter().find(|b| b.uid == uid);
    let target = target.unwrap_or_else(|| panic!("{from}: {url} leads nowhere"));
    for set in query.split('&').filter_map(|p| p.strip_prefix("var-")) {
        let name = set.split('=').next().unwrap();
        let known = target.variables.iter().any(|v| v.name == name);
        assert!(known, "{from}: {url}: {uid} has no variable {name}");
    }
}

fn visit(value: &Value, found: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found(key, value);
                visit(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|v| visit(v, found)),
        _ => {}
    }
}

//! Dashboards as their files tell.

use std::path::PathBuf;

use serde_json::Value;

/// One dashboard.
pub struct Board {
    pub uid: String,
    pub json: Value,
    pub variables: Vec<Variable>,
    /// Of its panels and annotations.
    pub queries: Vec<Query>,
}

/// One query and what is to come of it.
pub struct Query {
    /// Dashboard, panel and query, for messages.
    pub place: String,
    pub sql: String,
    /// Whether it is read as time series.
    pub series: bool,
    /// Columns that the panel names.
    pub columns: Vec<String>,
}

/// One variable that stands for values of the data.
pub struct Variable {
    pub name: String,
    pub query: Option<Query>,
    pub options: Vec<String>,
    pub multi: bool,
    pub all_value: Option<String>,
}

/// Every dashboard of the repository.
pub fn all() -> Vec<Board> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let mut boards: Vec<Board> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| board(&std::fs::read_to_string(path).unwrap()))
        .collect();
    boards.sort_by(|a, b| a.uid.cmp(&b.uid));
    boards
}

/// Panels that ask something.
pub fn panels(json: &Value) -> impl Iterator<Item = &Value> {
    list(&json["panels"]).filter(|p| p["type"] != "row")
}

pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn board(json: &str) -> Board {
    let json: Value = serde_json::from_str(json).unwrap();
    let uid = text(&json["uid"]);
    let mut queries: Vec<Query> = panels(&json).flat_map(|p| of_panel(&uid, p)).collect();
    for annotation in list(&json["annotations"]["list"]) {
        if let Some(sql) = annotation["target"]["rawSql"].as_str() {
            queries.push(Query {
                place: format!("{uid} / annotation {}", annotation["name"]),
                sql: sql.into(),
                series: false,
                columns: vec!["time".into(), "text".into()],
            });
        }
    }
    let variables = list(&json["templating"]["list"]).filter(|v| v["type"] != "datasource");
    let variables = variables.map(|v| variable(&uid, v)).collect();
    Board {
        uid,
        variables,
        queries,
        json,
    }
}

fn of_panel(uid: &str, panel: &Value) -> Vec<Query> {
    let overrides = list(&panel["fieldConfig"]["overrides"]).map(|o| &o["matcher"]);
    let named = overrides
        .filter(|m| m["id"] == "byName")
        .map(|m| text(&m["options"]));
    let columns: Vec<String> = named.collect();
    let query = |target: &Value| Query {
        place: format!(
            "{uid} / {} {}",
            text(&panel["title"]),
            text(&target["refId"])
        ),
        sql: text(&target["rawSql"]),
        series: target["format"] == "time_series",
        columns: columns.clone(),
    };
    list(&panel["targets"]).map(query).collect()
}

fn variable(uid: &str, json: &Value) -> Variable {
    let name = text(&json["name"]);
    let query = (json["type"] == "query").then(|| Query {
        place: format!("{uid} / variable {name}"),
        sql: text(&json["query"]),
        series: false,
        columns: Vec::new(),
    });
    Variable {
        query,
        options: list(&json["options"]).map(|o| text(&o["value"])).collect(),
        multi: json["multi"] == true,
        all_value: json["allValue"].as_str().map(str::to_string),
        name,
    }
}

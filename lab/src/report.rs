//! What an experiment found: tables for people, JSON for programs.

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::terminal::say;

/// Form of printed figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people
    #[default]
    Table,
    /// One JSON object: an array of rows for each table, and the notes
    Json,
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    name: &'static str,
    /// (key in JSON, heading)
    columns: &'static [(&'static str, &'static str)],
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows; columns are (key in JSON, heading).
    pub const fn new(name: &'static str, columns: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            name,
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row; null is what can't be told.
    pub fn push(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    /// The figures of a column, top down; `None` where there is none.
    pub fn figures(&self, key: &str) -> Vec<Option<f64>> {
        let at = self.columns.iter().position(|(k, _)| *k == key);
        self.rows
            .iter()
            .map(|row| at.and_then(|at| row.get(at)?.as_f64()))
            .collect()
    }

    fn json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let cells = self.columns.iter().zip(row);
            Value::Object(
                cells
                    .map(|((key, _), cell)| ((*key).to_owned(), cell.clone()))
                    .collect(),
            )
        };
        self.rows.iter().map(object).collect()
    }

    fn lines(&self) -> Vec<String> {
        let head = self.columns.iter().map(|(_, h)| (*h).to_owned()).collect();
        let cells: Vec<Vec<String>> = std::iter::once(head)
            .chain(self.rows.iter().map(|row| row.iter().map(cell).collect()))
            .collect();
        let width = |column: usize| {
            let of = |row: &Vec<String>| row.get(column).map_or(0, |c| c.chars().count());
            cells.iter().map(of).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let padded: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(n, (cell, width))| match n {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        cells.iter().map(line).collect()
    }
}

/// All that an experiment found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order they are printed.
    pub tables: Vec<Table>,
    /// What headroom's own tables say, row by row: (table, row).
    pub seen: Vec<(String, Map<String, Value>)>,
    /// What the reader must know to judge the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// Prints it.
    pub fn print(&self, format: Format) {
        match format {
            Format::Json => say(&format!("{:#}", self.json())),
            Format::Table => {
                for table in &self.tables {
                    say(&format!("\n{}", table.name));
                    table.lines().iter().for_each(|line| say(line));
                }
                for (table, row) in &self.seen {
                    let known = row.iter().filter(|(_, value)| !value.is_null());
                    let words: Vec<String> =
                        known.map(|(k, v)| format!("{k}={}", cell(v))).collect();
                    say(&format!("{table}: {}", words.join(" ")));
                }
                self.notes.iter().for_each(|note| say(note));
            }
        }
    }

    fn json(&self) -> Value {
        let mut all = Map::new();
        for table in &self.tables {
            all.insert(table.name.to_owned(), table.json());
        }
        for (table, row) in &self.seen {
            let rows = all
                .entry(table.clone())
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(rows) = rows {
                rows.push(Value::Object(row.clone()));
            }
        }
        all.insert("notes".to_owned(), self.notes.clone().into());
        Value::Object(all)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "n/a".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => format!("{:.1}", n.as_f64().unwrap_or_default()),
        Value::Object(map) => {
            let words: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k} {}", cell(v)))
                .collect();
            words.join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Report {
        let mut table = Table::new("figures", &[("vm", "VM"), ("ready_pct", "ready %")]);
        table.push(vec!["lab1".into(), 50.04.into()]);
        table.push(vec!["a longer name".into(), Value::Null]);
        let row = Map::from_iter([("culprit".to_owned(), json!("lab2"))]);
        Report {
            tables: vec![table],
            seen: vec![("blame".to_owned(), row)],
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn columns_are_aligned_and_the_unknown_is_not_zero() {
        let lines = report().tables[0].lines();
        assert_eq!(lines[0], "VM             ready %");
        assert_eq!(lines[1], "lab1              50.0");
        assert_eq!(lines[2], "a longer name      n/a");
    }

    #[test]
    fn json_has_rows_by_table() {
        let json = report().json();
        assert_eq!(json["figures"][0]["ready_pct"], 50.04);
        assert!(json["figures"][1]["ready_pct"].is_null());
        assert_eq!(json["blame"][0]["culprit"], "lab2");
        assert_eq!(json["notes"][0], "a note");
    }

    #[test]
    fn figures_of_a_column() {
        assert_eq!(report().tables[0].figures("ready_pct"), [Some(50.04), None]);
    }
}

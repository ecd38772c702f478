//! What a run brought back.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::LabError;
use crate::machine::Output;
use crate::message::{AgentRun, Message};

/// The agent's rows and the truth beside them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `uname -r` inside.
    pub kernel: String,
    /// Each process of the agent, in order.
    pub runs: Vec<Run>,
    /// How much this host disturbed the machine: of the time in which it wanted
    /// CPUs, the share in which it waited for them. Inside, such a wait looks
    /// like any instruction that takes long, and none of the sources can tell.
    pub disturbance: f64,
    truths: BTreeMap<String, Value>,
}

/// One process of the agent.
#[derive(Clone, Debug)]
pub struct Run(AgentRun);

impl Report {
    pub(crate) fn parse(output: &Output) -> Result<Self, LabError> {
        let mut report = Self {
            disturbance: output.disturbance,
            ..Self::default()
        };
        let mut ended = false;
        for line in output.wire.lines().filter(|l| !l.is_empty()) {
            let message = serde_json::from_str(line).map_err(|source| LabError::Wire {
                line: line.chars().take(200).collect(),
                source,
            })?;
            match message {
                Message::Begin { kernel } => report.kernel = kernel,
                Message::Agent(run) => report.runs.push(Run(run)),
                Message::Truth { name, value } => {
                    report.truths.insert(name, value);
                }
                Message::End { error: None, .. } => ended = true,
                Message::End {
                    error: Some(error),
                    agent,
                } => return Err(LabError::Inside { error, agent }),
            }
        }
        match ended {
            true => Ok(report),
            false => Err(LabError::Died {
                console: output.console.clone(),
            }),
        }
    }

    /// A truth by its name.
    ///
    /// # Errors
    /// The scenario has none of that name, or it is of another shape.
    pub fn truth<T: DeserializeOwned>(&self, name: &str) -> Result<T, LabError> {
        let value = self.truths.get(name).cloned();
        value
            .and_then(|v| serde_json::from_value(v).ok())
            .ok_or_else(|| LabError::NoTruth { name: name.into() })
    }

    /// All truths, by name.
    #[must_use]
    pub const fn truths(&self) -> &BTreeMap<String, Value> {
        &self.truths
    }
}

impl Run {
    /// As the scenario names it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn said(&self) -> &[String] {
        &self.0.said
    }

    /// Its exit code after SIGTERM; `None`: killed by a signal.
    #[must_use]
    pub const fn exit_code(&self) -> Option<i32> {
        self.0.exit_code
    }

    /// Rows of a table, in order.
    pub fn rows<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.rows.iter().filter(move |r| r["table"] == table)
    }

    /// Rows of all tables.
    #[must_use]
    pub fn all(&self) -> &[Value] {
        &self.0.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str) -> Result<Report, LabError> {
        Report::parse(&Output {
            wire: wire.to_owned(),
            console: "last words".to_owned(),
            disturbance: 0.0,
        })
    }

    const BEGIN: &str = "{\"message\":\"begin\",\"kernel\":\"6.1.0\"}\n";
    const AGENT: &str = concat!(
        r#"{"message":"agent","name":"auto","said":["attached tp_btf"],"exit_code":0,"#,
        r#""rows":[{"table":"vms","vcpus":1},{"table":"vcpus","tid":7}]}"#,
        "\n"
    );
    const END: &str = "{\"message\":\"end\",\"error\":null,\"agent\":\"\"}\n";

    #[test]
    fn rows_and_truths_come_back() {
        let truth = "{\"message\":\"truth\",\"name\":\"n\",\"value\":3}\n";
        let report = parse(&[BEGIN, AGENT, truth, END].concat()).unwrap();
        assert_eq!(
            (report.kernel.as_str(), report.truth("n").unwrap()),
            ("6.1.0", 3)
        );
        assert!(report.truth::<String>("n").is_err());
        let run = &report.runs[0];
        assert_eq!((run.name(), run.exit_code()), ("auto", Some(0)));
        assert_eq!(run.rows("vcpus").next().unwrap()["tid"], 7);
    }

    #[test]
    fn a_machine_that_did_not_finish_is_an_error() {
        assert!(matches!(parse(BEGIN), Err(LabError::Died { console }) if console == "last words"));
        let failed = END.replace("null", "\"no KVM\"");
        assert!(matches!(parse(&failed), Err(LabError::Inside { error, .. }) if error == "no KVM"));
        assert!(matches!(parse("{\"mess"), Err(LabError::Wire { .. })));
    }
}

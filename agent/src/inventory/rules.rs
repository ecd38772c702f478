//! The text of a labels file.
//!
//! ```toml
//! [defaults]                # of every VM of this host that no source labels
//! region = "eu-north-1"
//!
//! [[vm]]
//! uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"   # or name = , or glob =
//! tenant = "acme"
//! project = "shop"
//! vm_type = "m5.large"
//! priority = 10
//! qos_class = "guaranteed"
//! labels = { team = "payments" }
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use toml::Spanned;

use super::{Labels, glob};

/// A labels file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// It is there and cannot be read.
    #[error("cannot be read ({0}); make it readable by the agent's user, or take agent.labels out")]
    Read(#[source] std::io::Error),
    /// It is beyond 4 MiB.
    #[error("has more than 4 MiB; name groups of VMs by glob instead of each one")]
    TooLarge,
    /// A line is wrong.
    #[error("line {line}: {problem}; {remedy}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// Entries of a labels file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    defaults: Labels,
    uuids: HashMap<String, Labels>,
    names: HashMap<String, Labels>,
    globs: Vec<(String, Labels)>,
}

impl Rules {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, LabelsError> {
        let file: RawFile = toml::from_str(text).map_err(|e| LabelsError::Line {
            line: line_of(text, e.span().map_or(0, |span| span.start)),
            problem: one_line(e.message()),
            remedy: "the keys are tenant, project, vm_type, region, priority, qos_class and labels, in [defaults], or in [[vm]] beside one of uuid, name, glob",
        })?;
        let mut rules = Self {
            defaults: file.defaults.into(),
            ..Self::default()
        };
        for entry in file.vm {
            let line = line_of(text, entry.span().start);
            rules.add(entry.into_inner(), line)?;
        }
        Ok(rules)
    }

    /// Labels of a VM by its entries: that of its UUID before that of its
    /// name before the patterns it fits, the first of them first.
    #[must_use]
    pub fn of(&self, uuid: Option<&str>, name: &str) -> Labels {
        let by_uuid = uuid.and_then(|uuid| self.uuids.get(uuid));
        let patterns = self.globs.iter().filter(|(p, _)| glob::fits(p, name));
        by_uuid
            .into_iter()
            .chain(self.names.get(name))
            .chain(patterns.map(|(_, labels)| labels))
            .fold(Labels::default(), |all, labels| all.or(labels.clone()))
    }

    /// What holds for every VM of which no other source tells.
    #[must_use]
    pub fn defaults(&self) -> Labels {
        self.defaults.clone()
    }

    fn add(&mut self, entry: RawEntry, line: usize) -> Result<(), LabelsError> {
        let wrong = |problem: String, remedy| LabelsError::Line {
            line,
            problem,
            remedy,
        };
        let (uuid, name, pattern) = (entry.uuid.clone(), entry.name.clone(), entry.glob.clone());
        let labels = entry.into();
        let doubled = match (uuid, name, pattern) {
            (Some(uuid), None, None) => {
                let uuid = uuid.to_ascii_lowercase();
                self.uuids.insert(uuid.clone(), labels).map(|_| uuid)
            }
            (None, Some(name), None) => self.names.insert(name.clone(), labels).map(|_| name),
            (None, None, Some(pattern)) => {
                self.globs.push((pattern, labels));
                None
            }
            _ => {
                return Err(wrong(
                    "an entry does not say which VM it is for".into(),
                    "give it exactly one of uuid, name, glob",
                ));
            }
        };
        doubled.map_or(Ok(()), |of| {
            Err(wrong(
                format!("{of:?} has an entry already"),
                "join the two",
            ))
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFile {
    defaults: RawDefaults,
    vm: Vec<Spanned<RawEntry>>,
}

/// A label's value: text, or a number or truth value as it is written.
struct Text(String);

macro_rules! raw {
    ($name:ident { $($key:ident),* }) => {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name {
            $($key: Option<String>,)*
            tenant: Option<Text>,
            project: Option<Text>,
            vm_type: Option<Text>,
            region: Option<Text>,
            priority: Option<Text>,
            qos_class: Option<Text>,
            labels: BTreeMap<String, Text>,
        }

        impl From<$name> for Labels {
            fn from(raw: $name) -> Self {
                Self {
                    tenant: raw.tenant.map(|t| t.0),
                    project: raw.project.map(|t| t.0),
                    vm_type: raw.vm_type.map(|t| t.0),
                    region: raw.region.map(|t| t.0),
                    priority: raw.priority.map(|t| t.0),
                    qos_class: raw.qos_class.map(|t| t.0),
                    more: raw.labels.into_iter().map(|(k, v)| (k, v.0)).collect(),
                }
            }
        }
    };
}
raw!(RawDefaults {});
raw!(RawEntry { uuid, name, glob });

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Text, E> {
                match value.is_empty() {
                    true => Err(E::custom("an empty text labels nothing")),
                    false => Ok(Text(value.to_owned())),
                }
            }

            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().iter().take(byte);
    before.filter(|b| **b == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.split('\n').collect::<Vec<_>>().join(", ")
}

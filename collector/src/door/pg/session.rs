//! The parameters of one session.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pgwire::error::PgWireResult;

use super::{NAME, error};

/// PostgreSQL whose ways are followed; psql chooses its questions by it.
const SERVER_VERSION: &str = "16.6";

/// Parameters that can't change, with their values.
const FIXED: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("in_hot_standby", "off"),
    ("is_superuser", "off"),
    ("session_authorization", NAME),
    ("role", "none"),
    ("scram_iterations", "4096"),
    ("max_identifier_length", "63"),
    ("lc_collate", "C.UTF-8"),
    ("lc_ctype", "C.UTF-8"),
    ("ssl", "off"),
];

/// Parameters that a client may set. All but the timeout and the name change
/// nothing here: times are given in UTC, whatever zone is asked for.
const FREE: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("check_function_bodies", "on"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("escape_string_warning", "on"),
    ("extra_float_digits", "1"),
    ("geqo", "on"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("intervalstyle", "postgres"),
    ("jit", "off"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("lock_timeout", "0"),
    ("row_security", "on"),
    ("search_path", "public"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronize_seqscans", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("work_mem", "4MB"),
];

/// The parameters of a session that has set none.
pub fn defaults() -> BTreeMap<String, String> {
    let named = FIXED.iter().chain(FREE);
    let mut all: BTreeMap<_, _> = named
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let version = format!(
        "PostgreSQL {SERVER_VERSION} (headroom {}, read only)",
        env!("CARGO_PKG_VERSION")
    );
    all.insert("version".into(), version);
    all
}

/// One session.
#[derive(Debug)]
pub struct Session(Mutex<BTreeMap<String, String>>);

impl Session {
    /// A session with every parameter at its default.
    pub fn new() -> Self {
        Self(Mutex::new(defaults()))
    }

    /// Takes those of the startup message that it knows.
    pub fn adopt(&self, asked: &HashMap<String, String>) {
        for (name, value) in asked {
            let _ = self.set(&name.to_lowercase(), Some(value));
        }
    }

    /// All parameters.
    pub fn settings(&self) -> BTreeMap<String, String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The value of a parameter.
    pub fn show(&self, name: &str) -> PgWireResult<String> {
        self.settings().remove(name).ok_or_else(|| unknown(name))
    }

    /// Sets a parameter, or takes its default.
    pub fn set(&self, name: &str, value: Option<&str>) -> PgWireResult<()> {
        let Some((_, default)) = FREE.iter().find(|(n, _)| *n == name) else {
            return Err(if FIXED.iter().any(|(n, _)| *n == name) {
                error::error("55P02", format!("parameter \"{name}\" cannot be changed"))
            } else {
                unknown(name)
            });
        };
        let value = value.unwrap_or(default);
        check(name, value)?;
        // It is what is answered in, not what was asked for.
        if name != "timezone" {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }

    /// Sets one or all parameters back.
    pub fn reset(&self, name: Option<&str>) -> PgWireResult<()> {
        if let Some(name) = name {
            return self.set(name, None);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = defaults();
        Ok(())
    }

    /// The client's own limit for one statement.
    pub fn timeout(&self) -> Option<Duration> {
        let text = self.show("statement_timeout").ok()?;
        timeout(&text).flatten()
    }
}

fn unknown(name: &str) -> pgwire::error::PgWireError {
    error::error(
        "42704",
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

fn check(name: &str, value: &str) -> PgWireResult<()> {
    const LONGEST: usize = 1024;
    let plain = value.to_lowercase().replace(['-', '_'], "");
    let fits = match name {
        "client_encoding" => matches!(plain.as_str(), "utf8" | "unicode"),
        "datestyle" => plain.starts_with("iso"),
        "intervalstyle" => plain == "postgres",
        "standard_conforming_strings" => matches!(plain.as_str(), "on" | "true" | "1"),
        "transaction_read_only" | "default_transaction_read_only" => true,
        "statement_timeout" => timeout(value).is_some(),
        _ => value.len() <= LONGEST,
    };
    if fits {
        return Ok(());
    }
    let text = format!("invalid value for parameter \"{name}\": \"{value}\"");
    Err(error::error("22023", text))
}

/// `0`, milliseconds, or a number with `ms`, `s`, `min`; `Some(None)`: none.
fn timeout(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().ok()?;
    let millis = match text[digits.len()..].trim() {
        "" | "ms" => number,
        "s" => number.checked_mul(1000)?,
        "min" => number.checked_mul(60_000)?,
        _ => return None,
    };
    Some((millis > 0).then(|| Duration::from_millis(millis)))
}

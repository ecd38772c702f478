//! SQL as PostgreSQL's clients write it: told apart, and brought into words
//! that the engine knows.

mod guard;
mod infer;
mod literal;
mod rewrite;
mod split;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, LimitClause, ObjectName, Reset, Set, Statement, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;

pub use infer::ParameterType;
pub use literal::Parameter;
pub use split::split;

/// Nesting of one statement that is parsed here; the engine has its own limit.
const DEPTH: usize = 64;

static COMPATIBLE: LazyLock<PostgresCompatibilityParser> =
    LazyLock::new(PostgresCompatibilityParser::default);

/// What one statement asks for.
#[derive(Debug)]
pub enum Command {
    /// Rows of the engine.
    Read(Box<Read>),
    /// A parameter of the session.
    Show(String),
    /// A parameter of the session changes; `None` takes its default.
    Set(String, Option<String>),
    /// A parameter, or all, back to the default.
    Reset(Option<String>),
    /// A transaction begins.
    Begin,
    /// A transaction ends well.
    Commit,
    /// A transaction is given up.
    Rollback,
    /// Nothing to do; the tag of the answer.
    Nothing(&'static str),
}

/// Why a statement is not even given to the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no SQL.
    #[error("{0}")]
    Syntax(String),
    /// It would change something.
    #[error(
        "{0} is refused: this port only reads (SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN and the session's own parameters)"
    )]
    Writes(String),
    /// The session has no such thing.
    #[error("{0}")]
    Unsupported(String),
    /// A parameter that can't be put into the statement.
    #[error("parameter ${0}: {1}")]
    Parameter(usize, String),
}

/// A statement for the engine. It has no `Clone`: copying its tree would take
/// more stack than a thread of the runtime has ([`guard::deep`]).
#[derive(Debug)]
pub struct Read {
    text: String,
    /// Set if the text as written can't be given to the engine.
    statement: Option<Statement>,
    /// Set if its shape can be had without running it.
    query: Option<Statement>,
    /// Types of `$1`, `$2`, … as far as the statement says.
    pub parameters: Vec<ParameterType>,
}

/// Reads one statement. `settings` are the session's parameters, which its
/// functions may name.
///
/// # Errors
/// It is no SQL, more than reading, or too nested to be looked at here.
pub fn read(text: &str, settings: &BTreeMap<String, String>) -> Result<Command, Refused> {
    guard::check(text)?;
    guard::deep(|| read_checked(text, settings))
}

fn read_checked(text: &str, settings: &BTreeMap<String, String>) -> Result<Command, Refused> {
    let first = split::first_word(text);
    match first.as_str() {
        "SELECT" | "WITH" | "VALUES" | "TABLE" | "FROM" | "(" | "DESCRIBE" | "DESC" | "EXPLAIN"
        | "SHOW" | "SET" | "RESET" | "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK"
        | "ABORT" | "SAVEPOINT" | "RELEASE" | "DISCARD" | "DEALLOCATE" | "CLOSE" | "UNLISTEN" => {}
        "" => return Ok(Command::Nothing("")),
        other => return Err(Refused::Writes(other.chars().take(40).collect())),
    }
    match first.as_str() {
        "ABORT" => return Ok(Command::Rollback),
        "UNLISTEN" => return Ok(Command::Nothing("UNLISTEN")),
        "RELEASE" => return Ok(Command::Nothing("RELEASE")),
        _ => {}
    }
    let statement = parse(text)?;
    command(text, statement, settings)
}

fn command(
    text: &str,
    statement: Statement,
    settings: &BTreeMap<String, String>,
) -> Result<Command, Refused> {
    Ok(match statement {
        Statement::Query(_) => Command::Read(Box::new(query(text, statement, settings)?)),
        Statement::Explain { .. }
        | Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. } => Command::Read(Box::new(Read {
            text: text.to_owned(),
            statement: None,
            query: None,
            parameters: Vec::new(),
        })),
        Statement::ShowVariable { variable } => Command::Show(joined(&variable)),
        Statement::Set(set) => assignment(set)?,
        Statement::Reset(reset) => Command::Reset(match reset.reset {
            Reset::ALL => None,
            Reset::ConfigurationParameter(name) => Some(name.to_string().to_lowercase()),
        }),
        Statement::StartTransaction { .. } => Command::Begin,
        Statement::Commit { .. } => Command::Commit,
        Statement::Rollback {
            savepoint: None, ..
        } => Command::Rollback,
        Statement::Rollback { .. } => Command::Nothing("ROLLBACK"),
        Statement::Savepoint { .. } => Command::Nothing("SAVEPOINT"),
        Statement::Discard { .. } => Command::Nothing("DISCARD ALL"),
        Statement::Deallocate { .. } => Command::Nothing("DEALLOCATE"),
        Statement::Close { .. } => Command::Nothing("CLOSE CURSOR"),
        other => {
            let verb: String = other
                .to_string()
                .split(' ')
                .take(2)
                .collect::<Vec<_>>()
                .join(" ");
            return Err(Refused::Writes(verb));
        }
    })
}

fn joined(words: &[Ident]) -> String {
    let words: Vec<_> = words.iter().map(|w| w.value.to_lowercase()).collect();
    match words.join(" ").as_str() {
        "time zone" => "timezone".into(),
        "transaction isolation level" => "transaction_isolation".into(),
        "session authorization" => "session_authorization".into(),
        other => other.into(),
    }
}

fn assignment(set: Set) -> Result<Command, Refused> {
    Ok(match set {
        Set::SingleAssignment {
            variable, values, ..
        } => Command::Set(variable.to_string().to_lowercase(), values_text(&values)),
        Set::SetTimeZone { value, .. } => {
            Command::Set("timezone".into(), values_text(std::slice::from_ref(&value)))
        }
        Set::SetNames { charset_name, .. } => {
            Command::Set("client_encoding".into(), Some(charset_name.value))
        }
        Set::SetNamesDefault {} => Command::Set("client_encoding".into(), None),
        Set::SetTransaction { .. } => Command::Nothing("SET"),
        other => {
            return Err(Refused::Unsupported(format!(
                "{other} is not supported: there is one user and one role"
            )));
        }
    })
}

fn values_text(values: &[Expr]) -> Option<String> {
    let texts: Vec<String> = values
        .iter()
        .map(|value| match value {
            Expr::Value(v) => match &v.value {
                Value::SingleQuotedString(s) | Value::DoubleQuotedString(s) => s.clone(),
                other => other.to_string(),
            },
            Expr::Identifier(ident) => ident.value.clone(),
            other => other.to_string(),
        })
        .collect();
    match texts.as_slice() {
        [one] if one.eq_ignore_ascii_case("default") => None,
        _ => Some(texts.join(", ")),
    }
}

fn parse(text: &str) -> Result<Statement, Refused> {
    let with = |dialect: &dyn datafusion::sql::sqlparser::dialect::Dialect| {
        Parser::new(dialect)
            .with_recursion_limit(DEPTH)
            .try_with_sql(text)
            .and_then(|mut p| p.parse_statements())
    };
    let parsed = with(&PostgreSqlDialect {}).or_else(|e| with(&GenericDialect {}).map_err(|_| e));
    let mut statements = parsed.map_err(|e| Refused::Syntax(clean(&e.to_string())))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(Refused::Syntax("one statement is expected".into())),
    }
}

fn clean(error: &str) -> String {
    let text = error.trim_start_matches("sql parser error: ");
    format!("syntax error: {text}")
}

fn query(
    text: &str,
    statement: Statement,
    settings: &BTreeMap<String, String>,
) -> Result<Read, Refused> {
    let needs = split::needs(text);
    let mut statement = statement;
    if rewrite::writes(&mut statement) {
        return Err(Refused::Writes("a write within a query".into()));
    }
    if needs.catalog {
        statement = compatible(text, statement, settings)?;
    }
    let parameters = infer::parameters(&mut statement)?;
    if !parameters.is_empty() {
        rewrite::name_parameters(&mut statement);
    }
    let changed = needs.catalog || !parameters.is_empty();
    Ok(Read {
        text: text.to_owned(),
        query: Some(statement.clone()),
        statement: changed.then_some(statement),
        parameters,
    })
}

/// PostgreSQL's words replaced. Whole queries of known clients are known by
/// their tokens, so those are looked for in the text as it came; Grafana's
/// question about the search path is ours to answer first.
fn compatible(
    text: &str,
    mut statement: Statement,
    settings: &BTreeMap<String, String>,
) -> Result<Statement, Refused> {
    let mut own = None;
    if text.contains("current_setting") {
        rewrite::session(&mut statement, settings)?;
        literal::unescape(&mut statement);
        own = Some(statement.to_string());
    }
    let mut parsed = COMPATIBLE
        .parse(own.as_deref().unwrap_or(text))
        .map_err(|e| Refused::Syntax(clean(&e.to_string())))?;
    let mut statement = parsed
        .pop()
        .ok_or_else(|| Refused::Syntax("one statement is expected".into()))?;
    rewrite::session(&mut statement, settings)?;
    rewrite::tables(&mut statement);
    Ok(statement)
}

impl Read {
    /// The text with its parameters in their places.
    ///
    /// # Errors
    /// Too few parameters, or one that can't be a literal.
    pub fn with(&self, values: &[Parameter]) -> Result<String, Refused> {
        match &self.statement {
            None => Ok(self.text.clone()),
            Some(statement) => guard::deep(|| fill(statement.clone(), values)),
        }
    }

    /// A text with the same columns and no rows: planned and not run.
    ///
    /// # Errors
    /// As [`Read::with`].
    pub fn shape(&self, values: &[Parameter]) -> Result<String, Refused> {
        let Some(Statement::Query(query)) = &self.query else {
            return Ok(self.text.clone());
        };
        guard::deep(|| {
            let mut query = query.clone();
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(literal::number(0)),
                offset: None,
                limit_by: Vec::new(),
            });
            query.fetch = None;
            fill(Statement::Query(query), values)
        })
    }
}

/// Puts each parameter in as a literal of the syntax tree.
fn fill(mut statement: Statement, values: &[Parameter]) -> Result<String, Refused> {
    literal::unescape(&mut statement);
    let filled = visit_expressions_mut(&mut statement, |expr| {
        let Some(index) = placeholder(expr) else {
            return ControlFlow::Continue(());
        };
        let literal = values
            .get(index)
            .ok_or_else(|| Refused::Parameter(index + 1, "is missing".into()))
            .and_then(|value| value.expression(index));
        match literal {
            Ok(literal) => *expr = literal,
            Err(refused) => return ControlFlow::Break(refused),
        }
        ControlFlow::Continue(())
    });
    match filled {
        ControlFlow::Break(refused) => Err(refused),
        ControlFlow::Continue(()) => Ok(statement.to_string()),
    }
}

/// The position of `$n`, from 0.
fn placeholder(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else {
        return None;
    };
    let Value::Placeholder(name) = &value.value else {
        return None;
    };
    name.strip_prefix('$')?
        .parse::<usize>()
        .ok()?
        .checked_sub(1)
}

/// The last part of a name, in lower case unless quoted.
fn last(name: &ObjectName) -> String {
    let part = name.0.last().and_then(|p| p.as_ident());
    part.map_or_else(String::new, |i| match i.quote_style {
        None => i.value.to_lowercase(),
        Some(_) => i.value.clone(),
    })
}

#[cfg(test)]
mod tests;

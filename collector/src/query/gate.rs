//! What of SQL is let through, decided on its syntax tree before anything is
//! planned: one statement that reads the catalogue's tables, of bounded size.
//!
//! The gate runs where the statement runs, in a query process: the parser too
//! can be made to take its time or its stack.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, SetExpr, Statement as Sql, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use super::QueryError;

/// Longest text of a query, bytes. The longest query shipped has 3 kB.
pub const MAX_SQL_BYTES: usize = 64 << 10;
/// Most tokens: each can be a level of the syntax tree, and letting go of a
/// tree takes stack by its depth.
const MAX_TOKENS: usize = 20_000;
/// Deepest nesting of expressions and subqueries. Planning takes time by its
/// square: 4000 terms of an OR took 21 s.
const MAX_DEPTH: usize = 500;
/// Most expressions, as in an `IN` list or `VALUES`.
const MAX_NODES: usize = 10_000;
/// Most `SELECT`s, as in a chain of `UNION`s.
const MAX_SELECTS: usize = 200;
/// Most tables, subqueries and joins in `FROM`s.
const MAX_RELATIONS: usize = 64;
/// Texts short enough never to have too many tokens.
const NO_COUNT: usize = MAX_TOKENS;

/// Functions that make rows or bytes out of nothing: one call can take more
/// memory than the pool knows of (`repeat` alone aborted the process).
pub const DENIED: &[&str] = &[
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "generate_series",
    "range",
    "array_resize",
    "list_resize",
];

/// A statement that passed.
#[derive(Debug)]
pub struct Passed {
    /// Its syntax tree: what was looked at is what is planned.
    pub statement: Statement,
    /// Every name that stands where a table may, in lower case, without its
    /// schema. Names of `WITH` are among them.
    pub tables: Vec<String>,
}

/// Checks a text.
///
/// # Errors
/// The text is no statement, more than one, too large, or not one that only
/// reads the catalogue's tables; says which and what to write instead.
pub fn check(text: &str, config: &SessionConfig) -> Result<Passed, QueryError> {
    short_enough(text)?;
    if text.len() > NO_COUNT {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize();
        let tokens = tokens.map_err(|e| QueryError::Sql(format!("no SQL: {e}")))?;
        if tokens.len() > MAX_TOKENS {
            return refuse(&format!(
                "the query has {} words and signs, more than the {MAX_TOKENS} allowed; shorten it",
                tokens.len()
            ));
        }
    }
    let limit = config.options().sql_parser.recursion_limit.get();
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(limit)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(unreadable)?;
    let Some(statement) = statements.pop_front() else {
        return refuse("the query is empty; try SHOW TABLES");
    };
    if !statements.is_empty() {
        return refuse("only one statement at a time; send them one by one");
    }
    let mut look = Look::default();
    let inner = match &statement {
        Statement::Explain(explain) => &explain.statement,
        other => other,
    };
    let Statement::Statement(sql) = inner else {
        return refuse(ONLY_READS);
    };
    if !reads(sql) {
        return refuse(ONLY_READS);
    }
    if let ControlFlow::Break(problem) = sql.visit(&mut look) {
        return refuse(&problem);
    }
    let mut tables = look.tables;
    tables.sort_unstable();
    tables.dedup();
    Ok(Passed { statement, tables })
}

/// Refuses a text beyond [`MAX_SQL_BYTES`], before it goes anywhere.
///
/// # Errors
/// It is longer.
pub fn short_enough(text: &str) -> Result<(), QueryError> {
    let (bytes, limit) = (text.len(), MAX_SQL_BYTES);
    if bytes > limit {
        return Err(QueryError::TooLong { bytes, limit });
    }
    Ok(())
}

fn unreadable(error: DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::SQL(problem, _) if **problem == ParserError::RecursionLimitExceeded => {
            QueryError::Sql(
                "the query nests too deeply to be read; take away parentheses or subqueries".into(),
            )
        }
        _ => error.into(),
    }
}

const ONLY_READS: &str = "only SELECT, WITH, VALUES, EXPLAIN, DESCRIBE and SHOW are allowed; nothing can be changed here";

fn refuse<T>(problem: &str) -> Result<T, QueryError> {
    Err(QueryError::Sql(problem.into()))
}

fn reads(sql: &Sql) -> bool {
    matches!(
        sql,
        Sql::Query(_)
            | Sql::ExplainTable { .. }
            | Sql::ShowTables { .. }
            | Sql::ShowColumns { .. }
            | Sql::ShowFunctions { .. }
            | Sql::ShowVariable { .. }
            | Sql::ShowVariables { .. }
            | Sql::ShowCreate { .. }
            | Sql::ShowSchemas { .. }
    )
}

#[derive(Default)]
struct Look {
    tables: Vec<String>,
    statements: usize,
    depth: usize,
    nodes: usize,
    selects: usize,
    relations: usize,
}

// Boxed: the visitor passes it through every level of its recursion.
type Verdict = ControlFlow<Box<str>>;

fn stop(problem: String) -> Verdict {
    ControlFlow::Break(problem.into())
}

impl Look {
    fn deeper(&mut self) -> Verdict {
        self.depth += 1;
        self.nodes += 1;
        if self.depth > MAX_DEPTH {
            return stop(format!(
                "the query nests deeper than the {MAX_DEPTH} levels allowed; write a long OR as IN (...)"
            ));
        }
        if self.nodes > MAX_NODES {
            return stop(format!(
                "the query has more than the {MAX_NODES} expressions allowed; join with a subquery instead of listing values"
            ));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Look {
    type Break = Box<str>;

    fn pre_visit_statement(&mut self, _: &Sql) -> Verdict {
        self.statements += 1;
        if self.statements > 1 {
            return stop(ONLY_READS.into());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> Verdict {
        if !query.locks.is_empty() {
            return stop("FOR UPDATE and FOR SHARE lock, and nothing can be changed here".into());
        }
        match &*query.body {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                stop(ONLY_READS.into())
            }
            SetExpr::Table(_) => stop("TABLE is not known; write SELECT * FROM".into()),
            _ => self.deeper(),
        }
    }

    fn post_visit_query(&mut self, _: &Query) -> Verdict {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Verdict {
        self.selects += 1;
        if self.selects > MAX_SELECTS {
            return stop(format!(
                "the query has more than the {MAX_SELECTS} SELECTs allowed; ask several queries"
            ));
        }
        if select.into.is_some() {
            return stop("SELECT INTO makes a table, and nothing can be changed here".into());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Verdict {
        self.relations += 1;
        if self.relations > MAX_RELATIONS {
            return stop(format!(
                "the query joins more than the {MAX_RELATIONS} tables allowed; ask several queries"
            ));
        }
        match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            }
            | TableFactor::Function { name, .. } => stop(format!(
                "{} is a table function, and there are none; SHOW TABLES lists the tables",
                shown(&name.to_string())
            )),
            TableFactor::TableFunction { .. } => {
                stop("there are no table functions; SHOW TABLES lists the tables".into())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> Verdict {
        let parts: Option<Vec<_>> = name.0.iter().map(|p| p.as_ident()).collect();
        let Some(parts) = parts.filter(|p| (1..=3).contains(&p.len())) else {
            return stop(format!(
                "{} is no table; SHOW TABLES lists them",
                shown(&name.to_string())
            ));
        };
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ' ' || c == '-')
        };
        if parts
            .iter()
            .any(|p| p.quote_style == Some('\'') || !plain(&p.value))
        {
            return stop(format!(
                "{} is no table, and no files are read; SHOW TABLES lists the tables",
                shown(&name.to_string())
            ));
        }
        if let Some(last) = parts.last() {
            self.tables.push(last.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Verdict {
        if let Expr::Function(call) = expr {
            let name = call.name.0.last().and_then(|p| p.as_ident());
            let name = name.map(|i| i.value.to_lowercase()).unwrap_or_default();
            if DENIED.contains(&name.as_str()) {
                return stop(format!(
                    "{name} is not allowed: it makes rows or bytes out of nothing; ask the tables"
                ));
            }
        }
        self.deeper()
    }

    fn post_visit_expr(&mut self, _: &Expr) -> Verdict {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// The beginning of a name, for an error of one line.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests;

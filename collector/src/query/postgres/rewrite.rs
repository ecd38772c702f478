//! Words that only PostgreSQL has, replaced by what they stand for here.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, SelectItem, SetExpr, Statement, TableAlias, TableFactor, Value,
    VisitMut as _, VisitorMut, visit_expressions_mut,
};

use super::{ParameterType, Refused, last, literal, placeholder};
use crate::query::pg_catalog::COLUMNS;

/// The one user.
const USER: &str = "headroom";

/// Replaces the session's functions by their values.
///
/// # Errors
/// A parameter that the session does not have.
pub(super) fn session(
    statement: &mut Statement,
    settings: &BTreeMap<String, String>,
) -> Result<(), Refused> {
    let _ = statement.visit(&mut Names);
    let _ = statement.visit(&mut Whole);
    let done = visit_expressions_mut(statement, |expr| {
        match value(expr, settings) {
            Ok(Some(value)) => *expr = value,
            Ok(None) => {}
            Err(refused) => return ControlFlow::Break(refused),
        }
        ControlFlow::Continue(())
    });
    match done {
        ControlFlow::Break(refused) => Err(refused),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Expressions that are replaced before what stands in them.
struct Whole;

impl VisitorMut for Whole {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            // Grafana asks whether a schema is in the search path by a subquery
            // that takes `search_path` apart. There is one schema.
            Expr::InSubquery {
                expr: what,
                subquery,
                negated,
            } => {
                let text = subquery.to_string();
                if text.contains("current_setting('search_path')")
                    && text.contains("string_to_array")
                {
                    *expr = Expr::InList {
                        expr: what.clone(),
                        list: vec![literal::text("public")],
                        negated: *negated,
                    };
                }
            }
            // `array(SELECT …)`, which the engine lacks: psql lists roles with
            // it, and there are none to list.
            Expr::Function(f)
                if last(&f.name) == "array" && matches!(f.args, FunctionArguments::Subquery(_)) =>
            {
                *expr = literal::null_of(ParameterType::TextList);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn value(expr: &Expr, settings: &BTreeMap<String, String>) -> Result<Option<Expr>, Refused> {
    let Expr::Function(function) = expr else {
        return Ok(match expr {
            Expr::Identifier(i) if i.quote_style.is_none() && is_user(&i.value) => {
                Some(literal::text(USER))
            }
            _ => None,
        });
    };
    let name = last(&function.name);
    Ok(Some(match name.as_str() {
        name if is_user(name) => literal::text(USER),
        "current_database" | "current_catalog" => literal::text(USER),
        "current_schema" => literal::text("public"),
        "version" => literal::text(settings.get("version").map_or("", String::as_str)),
        "pg_backend_pid" | "inet_server_port" | "txid_current" => literal::number(0),
        "inet_server_addr" => literal::text("127.0.0.1"),
        "pg_is_in_recovery" => Expr::Value(Value::Boolean(false).into()),
        "current_setting" | "set_config" => setting(function, settings)?,
        _ => return Ok(None),
    }))
}

fn is_user(name: &str) -> bool {
    ["current_user", "session_user", "current_role", "user"]
        .iter()
        .any(|u| name.eq_ignore_ascii_case(u))
}

/// `current_setting('name'[, missing_ok])`; `set_config` gives the value as it
/// is: a statement that reads changes nothing.
fn setting(function: &Function, settings: &BTreeMap<String, String>) -> Result<Expr, Refused> {
    let FunctionArguments::List(list) = &function.args else {
        return Err(Refused::Syntax("current_setting needs a name".into()));
    };
    let text = |i: usize| match list.args.get(i) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(v)))) => match &v.value {
            Value::SingleQuotedString(s) => Some(s.to_lowercase()),
            Value::Boolean(b) => Some(b.to_string()),
            _ => None,
        },
        _ => None,
    };
    let Some(name) = text(0) else {
        return Err(Refused::Unsupported(
            "current_setting takes the name as a text, written out".into(),
        ));
    };
    match settings.get(&name) {
        Some(value) => Ok(literal::text(value)),
        None if text(1).as_deref() == Some("true") => Ok(Expr::Value(Value::Null.into())),
        None => Err(Refused::Unsupported(format!(
            "unrecognized configuration parameter \"{name}\""
        ))),
    }
}

/// Gives columns of bare calls the name that PostgreSQL gives them.
struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let SetExpr::Select(select) = query.body.as_mut() else {
            return ControlFlow::Continue(());
        };
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else {
                continue;
            };
            let name = match expr {
                Expr::Function(f) => last(&f.name),
                Expr::Identifier(i) if is_user(&i.value) => i.value.to_lowercase(),
                _ => continue,
            };
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', name),
            };
        }
        ControlFlow::Continue(())
    }
}

/// Names columns with a parameter in them: the engine would name them after
/// the value, which is another one each time, and twice the same for NULLs.
pub(super) fn name_parameters(statement: &mut Statement) {
    let Statement::Query(query) = statement else {
        return;
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let mut nth = 0;
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let holds = visit_expressions_mut(expr, |e| match placeholder(e) {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        });
        if holds.is_break() {
            nth += 1;
            let name = if nth == 1 {
                "?column?".to_owned()
            } else {
                format!("?column{nth}?")
            };
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', name),
            };
        }
    }
}

/// Whether it writes, within a query's clothes (`WITH … DELETE`, `SELECT INTO`).
pub(super) fn writes(statement: &mut Statement) -> bool {
    struct Writes;
    impl VisitorMut for Writes {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            match query.body.as_ref() {
                SetExpr::Insert(_)
                | SetExpr::Update(_)
                | SetExpr::Delete(_)
                | SetExpr::Merge(_) => ControlFlow::Break(()),
                SetExpr::Select(select) if select.into.is_some() => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    statement.visit(&mut Writes).is_break()
}

/// `information_schema.columns` with PostgreSQL's types stands in `pg_catalog`.
pub(super) fn tables(statement: &mut Statement) {
    struct Tables;
    impl VisitorMut for Tables {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, alias, .. } = factor else {
                return ControlFlow::Continue(());
            };
            let columns = name
                .to_string()
                .eq_ignore_ascii_case("information_schema.columns");
            if columns {
                let part = |p: &str| ObjectNamePart::Identifier(Ident::new(p));
                *name = ObjectName(vec![part("pg_catalog"), part(COLUMNS)]);
                alias.get_or_insert_with(|| TableAlias {
                    explicit: true,
                    name: Ident::new("columns"),
                    columns: Vec::new(),
                    at: None,
                });
            }
            ControlFlow::Continue(())
        }
    }
    let _ = statement.visit(&mut Tables);
}

//! Types of parameters, as far as a statement's words say.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause,
    Query, Statement, Value, VisitMut as _, VisitorMut,
};
use headroom_core::metric::{Kind, TABLES};

use super::{Refused, last, placeholder};

/// Parameters of one statement at most.
const PARAMETERS: usize = 256;

/// A parameter's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterType {
    /// Truth value.
    Bool,
    /// 64-bit whole number.
    Int,
    /// Double.
    Float,
    /// Text; also where nothing says otherwise.
    Text,
    /// Bytes.
    Bytes,
    /// Instant.
    Time,
    /// Length of time.
    Interval,
    /// List of whole numbers.
    IntList,
    /// List of numbers.
    FloatList,
    /// List of texts.
    TextList,
}

/// Types of `$1`, `$2`, … in their order.
///
/// # Errors
/// `$n` beyond the limit.
pub(super) fn parameters(statement: &mut Statement) -> Result<Vec<ParameterType>, Refused> {
    let mut found = Found(Vec::new());
    if let ControlFlow::Break(refused) = statement.visit(&mut found) {
        return Err(refused);
    }
    let types = found.0.into_iter();
    Ok(types.map(|t| t.unwrap_or(ParameterType::Text)).collect())
}

struct Found(Vec<Option<ParameterType>>);

impl VisitorMut for Found {
    type Break = Refused;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refused> {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
            let offset = offset.as_ref().map(|o| &o.value);
            for expr in limit.iter().chain(offset) {
                self.note(expr, Some(ParameterType::Int))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refused> {
        match expr {
            Expr::Value(_) => self.note(expr, None),
            Expr::Cast {
                expr, data_type, ..
            } => self.note(expr, named(data_type)),
            Expr::BinaryOp { left, op, right } => self.pair(left, op, right),
            Expr::Between {
                expr, low, high, ..
            } => {
                let kind = type_of(expr).or(type_of(low)).or(type_of(high));
                self.all([expr, low, high].map(|e| &**e), kind)
            }
            Expr::InList { expr, list, .. } => {
                let kind = type_of(expr).or(list.iter().find_map(type_of));
                self.all(std::iter::once(&**expr).chain(list.iter()), kind)
            }
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                self.all([&**expr, &**pattern], Some(ParameterType::Text))
            }
            Expr::Function(function) => {
                let arguments = arguments(&function.args);
                match (last(&function.name).as_str(), arguments.as_slice()) {
                    ("time_bucket" | "date_bin", [width, at, ..]) => {
                        self.note(width, Some(ParameterType::Interval))?;
                        self.note(at, Some(ParameterType::Time))
                    }
                    // What `= ANY` has become.
                    ("array_contains", [list, item]) => {
                        let kind = type_of(item).and_then(list_of);
                        self.note(list, kind)
                    }
                    ("hist_quantile", [_, q]) => self.note(q, Some(ParameterType::Float)),
                    _ => ControlFlow::Continue(()),
                }
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Found {
    fn note(&mut self, expr: &Expr, kind: Option<ParameterType>) -> ControlFlow<Refused> {
        let Some(index) = placeholder(expr) else {
            return ControlFlow::Continue(());
        };
        if index >= PARAMETERS {
            let text = format!("more than {PARAMETERS} parameters");
            return ControlFlow::Break(Refused::Parameter(index + 1, text));
        }
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = self.0[index].or(kind);
        ControlFlow::Continue(())
    }

    fn all<'a>(
        &mut self,
        exprs: impl IntoIterator<Item = &'a Expr>,
        kind: Option<ParameterType>,
    ) -> ControlFlow<Refused> {
        exprs.into_iter().try_for_each(|e| self.note(e, kind))
    }

    fn pair(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> ControlFlow<Refused> {
        let mut kind = type_of(left).or(type_of(right));
        let sum = matches!(op, BinaryOperator::Plus | BinaryOperator::Minus);
        if sum && kind == Some(ParameterType::Time) {
            kind = Some(ParameterType::Interval);
        }
        if matches!(op, BinaryOperator::And | BinaryOperator::Or) {
            kind = Some(ParameterType::Bool);
        }
        self.all([left, right], kind)
    }
}

/// Type of an expression, where it is plain.
fn type_of(expr: &Expr) -> Option<ParameterType> {
    match expr {
        Expr::Identifier(ident) => column(&ident.value),
        Expr::CompoundIdentifier(parts) => column(&parts.last()?.value),
        Expr::Nested(inner) => type_of(inner),
        Expr::UnaryOp { expr, .. } => type_of(expr),
        Expr::Cast { data_type, .. } => named(data_type),
        Expr::Interval(_) => Some(ParameterType::Interval),
        Expr::Extract { .. } | Expr::Floor { .. } | Expr::Ceil { .. } => Some(ParameterType::Float),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) if digits.contains(['.', 'e', 'E']) => {
                Some(ParameterType::Float)
            }
            Value::Number(..) => Some(ParameterType::Int),
            Value::Boolean(_) => Some(ParameterType::Bool),
            Value::SingleQuotedString(_) => Some(ParameterType::Text),
            _ => None,
        },
        Expr::BinaryOp { left, op, right } => arithmetic(left, op, right),
        Expr::Function(function) => {
            let arguments = arguments(&function.args);
            match last(&function.name).as_str() {
                "count" | "hist_count" | "hist_quantile" => Some(ParameterType::Int),
                "avg" | "round" | "floor" | "ceil" | "date_part" | "stddev" => {
                    Some(ParameterType::Float)
                }
                "now" | "to_timestamp" | "date_bin" | "time_bucket" | "date_trunc" => {
                    Some(ParameterType::Time)
                }
                "lower" | "upper" | "trim" | "concat" => Some(ParameterType::Text),
                "min" | "max" | "sum" | "coalesce" | "abs" => {
                    arguments.iter().find_map(|a| type_of(a))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn arithmetic(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<ParameterType> {
    use BinaryOperator as B;
    use ParameterType as P;
    match op {
        B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo => {
            match (type_of(left), type_of(right)) {
                (Some(P::Time), Some(P::Time)) => Some(P::Interval),
                (Some(P::Time), _) | (_, Some(P::Time)) => Some(P::Time),
                (Some(P::Float), _) | (_, Some(P::Float)) => Some(P::Float),
                (a, b) => a.or(b),
            }
        }
        B::StringConcat => Some(P::Text),
        _ => Some(P::Bool),
    }
}

/// Type of a column by its name: no name stands for two types.
fn column(name: &str) -> Option<ParameterType> {
    let columns = TABLES.iter().flat_map(|t| t.columns);
    let column = columns.into_iter().find(|c| c.name == name);
    column.map(|c| match c.kind {
        Kind::Time => ParameterType::Time,
        Kind::Int => ParameterType::Int,
        Kind::Float => ParameterType::Float,
        Kind::Text => ParameterType::Text,
        Kind::Hist => ParameterType::Bytes,
    })
}

fn named(data_type: &DataType) -> Option<ParameterType> {
    let text = data_type.to_string().to_uppercase();
    let starts = |words: &[&str]| words.iter().any(|w| text.starts_with(w));
    if let Some(element) = text.strip_suffix("[]") {
        return match element {
            "BIGINT" | "INT" | "INTEGER" | "SMALLINT" | "INT8" | "INT4" | "INT2" => {
                Some(ParameterType::IntList)
            }
            "TEXT" | "VARCHAR" => Some(ParameterType::TextList),
            "FLOAT8" | "DOUBLE PRECISION" | "REAL" | "DOUBLE" => Some(ParameterType::FloatList),
            _ => None,
        };
    }
    Some(match () {
        () if starts(&["BOOL"]) => ParameterType::Bool,
        () if starts(&["INTERVAL"]) => ParameterType::Interval,
        () if starts(&["INT", "BIGINT", "SMALLINT"]) => ParameterType::Int,
        () if starts(&["FLOAT", "DOUBLE", "REAL", "NUMERIC", "DECIMAL"]) => ParameterType::Float,
        () if starts(&["TIMESTAMP"]) => ParameterType::Time,
        () if starts(&["BYTEA"]) => ParameterType::Bytes,
        () if starts(&["TEXT", "VARCHAR", "CHAR", "STRING"]) => ParameterType::Text,
        () => return None,
    })
}

fn list_of(kind: ParameterType) -> Option<ParameterType> {
    match kind {
        ParameterType::Int => Some(ParameterType::IntList),
        ParameterType::Float => Some(ParameterType::FloatList),
        ParameterType::Text => Some(ParameterType::TextList),
        _ => None,
    }
}

fn arguments(arguments: &FunctionArguments) -> Vec<&Expr> {
    let FunctionArguments::List(list) = arguments else {
        return Vec::new();
    };
    let plain = list.args.iter().filter_map(|a| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    plain.collect()
}

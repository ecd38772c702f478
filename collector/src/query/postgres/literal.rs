//! Values of parameters as literals of the syntax tree.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, CastKind, DataType, ExactNumberInfo, Expr, Statement, TimezoneInfo,
    UnaryOperator, Value, ValueWithSpan, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::{ParameterType, Refused};

/// The value of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// NULL of a type.
    Null(ParameterType),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An instant in a form that the engine reads.
    Time(String),
    /// A day, `2026-01-31`.
    Date(String),
    /// A length of time, `1 mons 2 days 3 seconds`.
    Interval(String),
    /// A list.
    List(Vec<Parameter>),
}

impl Parameter {
    /// As an expression; `index` names it in errors, from 0.
    pub(super) fn expression(&self, index: usize) -> Result<Expr, Refused> {
        Ok(match self {
            Self::Null(kind) => null_of(*kind),
            Self::Bool(b) => Expr::Value(plain(Value::Boolean(*b))),
            Self::Int(i64::MIN) => cast(text("-9223372036854775808"), DataType::BigInt(None)),
            Self::Int(n) => number(*n),
            // As text: NaN and infinity have no digits.
            Self::Float(f) => cast(
                text(&format!("{f:?}")),
                DataType::Double(ExactNumberInfo::None),
            ),
            Self::Text(s) if s.contains('\0') => {
                return Err(Refused::Parameter(index + 1, "a text has no byte 0".into()));
            }
            Self::Text(s) => text(s),
            Self::Bytes(bytes) => {
                let mut hex = String::with_capacity(bytes.len() * 2);
                for byte in bytes {
                    let _ = write!(hex, "{byte:02x}");
                }
                Expr::Value(plain(Value::HexStringLiteral(hex)))
            }
            Self::Time(s) => cast(
                text(s),
                DataType::Timestamp(None, TimezoneInfo::WithTimeZone),
            ),
            Self::Date(s) => cast(text(s), DataType::Date),
            Self::Interval(s) => cast(text(s), null_type(ParameterType::Interval)),
            Self::List(list) => Expr::Array(Array {
                elem: list
                    .iter()
                    .map(|p| p.expression(index))
                    .collect::<Result<_, _>>()?,
                named: true,
            }),
        })
    }
}

/// NULL of a type.
pub(super) fn null_of(kind: ParameterType) -> Expr {
    cast(Expr::Value(plain(Value::Null)), null_type(kind))
}

fn null_type(kind: ParameterType) -> DataType {
    let list = |of| {
        DataType::Array(ArrayElemTypeDef::SquareBracket(
            Box::new(null_type(of)),
            None,
        ))
    };
    match kind {
        ParameterType::Bool => DataType::Boolean,
        ParameterType::Int => DataType::BigInt(None),
        ParameterType::Float => DataType::Double(ExactNumberInfo::None),
        ParameterType::Text => DataType::Varchar(None),
        ParameterType::Bytes => DataType::Bytea,
        ParameterType::Time => DataType::Timestamp(None, TimezoneInfo::WithTimeZone),
        ParameterType::IntList => list(ParameterType::Int),
        ParameterType::FloatList => list(ParameterType::Float),
        ParameterType::TextList => list(ParameterType::Text),
        ParameterType::Interval => DataType::Interval {
            fields: None,
            precision: None,
        },
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// A whole number.
pub(super) fn number(n: i64) -> Expr {
    let digits = Expr::Value(plain(Value::Number(n.unsigned_abs().to_string(), false)));
    if n < 0 {
        Expr::Nested(Box::new(Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: Box::new(digits),
        }))
    } else {
        digits
    }
}

pub(super) fn text(text: &str) -> Expr {
    Expr::Value(plain(string(text.to_owned())))
}

/// A string that is printed as it is read. The plain form is printed without
/// a second look at quotes that follow a backslash or a quote, which changes
/// the value, or ends the literal.
fn string(text: String) -> Value {
    if text.contains(['\'', '\\']) {
        Value::EscapedStringLiteral(text)
    } else {
        Value::SingleQuotedString(text)
    }
}

fn plain(value: Value) -> ValueWithSpan {
    ValueWithSpan {
        value,
        span: Span::empty(),
    }
}

/// Brings all strings of a statement into a form that is printed as it was read.
pub(super) fn unescape(statement: &mut Statement) {
    struct Strings;
    impl VisitorMut for Strings {
        type Break = ();
        fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
            if let Value::SingleQuotedString(s) = &mut value.value {
                value.value = string(std::mem::take(s));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = statement.visit(&mut Strings);
}

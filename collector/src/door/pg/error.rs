//! Failures with PostgreSQL's codes.

use pgwire::error::{ErrorInfo, PgWireError};

use crate::query::QueryError;
use crate::query::postgres::Refused;

/// An error that ends the statement.
pub fn error(code: &str, message: impl Into<String>) -> PgWireError {
    user("ERROR", code, message.into())
}

/// An error that ends the connection.
pub fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    user("FATAL", code, message.into())
}

fn user(severity: &str, code: &str, message: String) -> PgWireError {
    let mut info = ErrorInfo::new(severity.into(), code.into(), message);
    info.severity_nonlocalized = Some(severity.into());
    PgWireError::UserError(Box::new(info))
}

/// A statement that was refused before the engine saw it.
pub fn refused(refused: &Refused) -> PgWireError {
    let code = match refused {
        Refused::Syntax(_) => "42601",
        Refused::Writes(_) => "25006",
        Refused::Unsupported(_) => "0A000",
        Refused::Parameter(..) => "22023",
    };
    error(code, refused.to_string())
}

/// A statement that the engine did not answer.
pub fn failed(failed: &QueryError) -> PgWireError {
    let text = failed.to_string();
    let code = match failed {
        QueryError::Sql(_) => meaning(&text),
        QueryError::TooLong { .. } => "54000",
        QueryError::Timeout(_) => "57014",
        QueryError::Memory(_) => "53200",
        QueryError::Busy => "53000",
        _ => "XX000",
    };
    error(code, text)
}

/// The engine gives one kind of error for all that is wrong with a text;
/// clients tell a missing table from a missing column by the code.
fn meaning(text: &str) -> &'static str {
    let says = |part: &str| text.contains(part);
    match () {
        () if says("table '") && says("not found") => "42P01",
        () if says("No field named") => "42703",
        () if says("Invalid function") => "42883",
        () if says("ParserError") || says("SQL error") => "42601",
        () if says("Divide by zero") || says("division by zero") => "22012",
        () if says("Cast error") || says("Parser error") => "22P02",
        () => "42000",
    }
}

//! Words of a text before it is parsed.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::Refused;

/// Statements of one text at most.
const STATEMENTS: usize = 64;

/// What a statement needs before the engine can take it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// It names PostgreSQL's catalog or one of the session's functions.
    pub catalog: bool,
}

/// Names beyond `pg_…` that only PostgreSQL has.
const POSTGRES: &[&str] = &[
    "current_setting",
    "set_config",
    "version",
    "current_user",
    "session_user",
    "current_role",
    "user",
    "current_database",
    "current_catalog",
    "current_schema",
    "current_schemas",
    "information_schema",
    "quote_ident",
    "parse_ident",
    "format_type",
    "regclass",
    "regtype",
    "regproc",
    "regnamespace",
    "oid",
    "array_lower",
    "array_upper",
    "obj_description",
    "col_description",
    "shobj_description",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_any_column_privilege",
    "collate",
    "operator",
    "any",
    "inet_server_addr",
    "inet_server_port",
    "txid_current",
];

/// The statements of a text, as written, without the empty ones.
///
/// # Errors
/// A string or comment has no end, or there are too many.
pub fn split(text: &str) -> Result<Vec<&str>, Refused> {
    let tokens = tokens(text)?;
    let lines = line_starts(text);
    let (mut pieces, mut from, mut empty) = (Vec::new(), 0, true);
    for token in &tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => {
                let at = offset(text, &lines, token);
                if !empty {
                    pieces.push(text[from..at].trim());
                }
                (from, empty) = (at + 1, true);
            }
            _ => empty = false,
        }
    }
    if !empty {
        pieces.push(text[from..].trim());
    }
    if pieces.len() > STATEMENTS {
        return Err(Refused::Unsupported(format!(
            "{} statements in one text, more than the {STATEMENTS} allowed",
            pieces.len()
        )));
    }
    Ok(pieces)
}

/// The first word in capitals, or the first sign.
pub fn first_word(text: &str) -> String {
    let tokens = tokens(text).unwrap_or_default();
    let first = tokens
        .iter()
        .find(|t| !matches!(t.token, Token::Whitespace(_)));
    first.map_or_else(String::new, |t| t.token.to_string().to_uppercase())
}

/// What its words need.
pub fn needs(text: &str) -> Needs {
    let tokens = tokens(text).unwrap_or_default();
    let catalog = tokens.iter().any(|t| match &t.token {
        Token::Word(word) if word.quote_style.is_none() => {
            let name = word.value.to_lowercase();
            name.starts_with("pg_") || POSTGRES.contains(&name.as_str())
        }
        _ => false,
    });
    Needs { catalog }
}

fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, Refused> {
    Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|e| Refused::Syntax(format!("syntax error: {e}")))
}

/// Bytes at which lines begin. The tokenizer counts lines by `\n`.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|(i, _)| i + 1))
        .collect()
}

/// Byte at which a token begins; its column counts characters from 1.
fn offset(text: &str, lines: &[usize], token: &TokenWithSpan) -> usize {
    let part = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    let start = token.span.start;
    let line = lines.get(part(start.line)).copied().unwrap_or(text.len());
    text[line..]
        .char_indices()
        .nth(part(start.column))
        .map_or(text.len(), |(i, _)| line + i)
}

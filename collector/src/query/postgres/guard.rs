//! What may be parsed in the collector itself. The engine parses in a process
//! that can be killed; this port has to look at a text first, to tell `SET`
//! from a query and to find the types of its parameters.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::Refused;
use crate::query::gate;

/// Most keywords and operators: each can be a level of the syntax tree, as in
/// a chain of `OR`. The shipped dashboards have up to 97.
const MAX_WORDS: usize = 1000;
/// Most attempts of the parser, which takes a nested call apart twice at each
/// level and a nested `CAST` three times (sqlparser 0.62, PostgreSQL's
/// dialect): 18 levels of `f(` took 0.3 s, 14 of `CAST(` 3.4 s. This many take
/// some 20 ms. The shipped dashboards have up to 100.
const MAX_ATTEMPTS: u64 = 1 << 14;
/// Stack for a tree of [`MAX_WORDS`] levels, whose printing takes up to 10 kB
/// a level when not optimised.
const STACK: usize = 64 << 20;

/// Refuses a text that would hold up the collector or overflow its stack.
///
/// # Errors
/// It is too long, too nested, or no SQL.
pub fn check(text: &str) -> Result<(), Refused> {
    let too_long = |e: crate::query::QueryError| Refused::Unsupported(e.to_string());
    gate::short_enough(text).map_err(too_long)?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize();
    let tokens = tokens.map_err(|e| Refused::Syntax(format!("syntax error: {e}")))?;
    let words = tokens.iter().filter(|t| nests(t)).count();
    if words > MAX_WORDS {
        return Err(Refused::Unsupported(format!(
            "the statement has {words} keywords and operators, more than the {MAX_WORDS} allowed; write a long OR as IN (...)"
        )));
    }
    if attempts(&tokens) > MAX_ATTEMPTS {
        return Err(Refused::Unsupported(
            "the statement nests too many parentheses; take some away, or use WITH".into(),
        ));
    }
    Ok(())
}

/// Runs it on a stack that suffices for every tree that passed.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, work)
}

fn nests(token: &Token) -> bool {
    !matches!(
        token,
        Token::Whitespace(_)
            | Token::Comma
            | Token::Period
            | Token::Number(..)
            | Token::Placeholder(_)
            | Token::SingleQuotedString(_)
            | Token::EOF
    ) && !matches!(token, Token::Word(w) if w.keyword == Keyword::NoKeyword)
}

/// At most how often the parser looks at what stands in parentheses.
fn attempts(tokens: &[Token]) -> u64 {
    let (mut open, mut sum, mut cast) = (vec![1_u64], 0_u64, false);
    for token in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen => {
                let factor = if cast { 3 } else { 2 };
                let here = open.last().map_or(1, |n| n.saturating_mul(factor));
                sum = sum.saturating_add(here);
                open.push(here);
            }
            Token::RParen if open.len() > 1 => {
                open.pop();
            }
            _ => {}
        }
        cast = matches!(token, Token::Word(w) if matches!(
            w.keyword,
            Keyword::CAST | Keyword::TRY_CAST | Keyword::SAFE_CAST | Keyword::CONVERT
        ));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_passes() {
        let nested = format!("SELECT {}x{}", "f(".repeat(9), ")".repeat(9));
        for text in [
            "SELECT avg(x) FROM t WHERE a = ANY(ARRAY[1, 2]) AND ts > now() - interval '1 hour'",
            &nested,
            &format!("SELECT x FROM t WHERE y IN ({}1)", "1, ".repeat(10_000)),
        ] {
            check(text).unwrap();
        }
    }

    #[test]
    fn parentheses_in_a_text_are_none() {
        check(&format!(
            "SELECT '{}', \"{}\"",
            "(".repeat(99),
            "(".repeat(99)
        ))
        .unwrap();
        let hidden = format!("SELECT {}1", "f(')', ".repeat(40));
        assert!(check(&hidden).is_err());
    }

    #[test]
    fn what_takes_the_parser_for_ever_is_refused() {
        for text in [
            format!("SELECT {}1", "CAST(".repeat(40)),
            format!("SELECT {}1{}", "f(".repeat(40), ")".repeat(40)),
            format!("SELECT * FROM {}", "(SELECT ".repeat(40)),
            format!("SELECT {}1", "f (/* */".repeat(40)),
            format!("SELECT {}", "f(f(f(f(f(f(f(1))))))),".repeat(500)),
            format!("SELECT 1{}", " OR 1".repeat(2000)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(600)),
            format!("SELECT {}1", "- ".repeat(2000)),
            format!("SELECT 1{}", "::int".repeat(2000)),
            "x".repeat(70_000),
        ] {
            assert!(check(&text).is_err(), "{}", &text[..40]);
        }
    }
}

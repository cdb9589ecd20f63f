//! Writes the canonical query of a selection: keywords in lower case, single spaces, and no parentheses but
//! those that the parser needs, so that the canonical query is never nested deeper than what was read.

use std::fmt::{Display, Formatter, Result, Write};

use farrier_protocol::Text;

use super::fields::TAG;
use super::{EcuTest, Selection, TextTest};

pub(super) fn query(selection: &Selection, f: &mut Formatter<'_>) -> Result {
    match selection {
        Selection::All => f.write_str("all"),
        Selection::And(parts) => {
            let mut ecu_before = false;
            separated(f, " and ", parts, |f, part| match part {
                // Only one ECU of a chain can go without parentheses, or two would be read as one.
                Selection::HasEcu(_) if !ecu_before => {
                    ecu_before = true;
                    query(part, f)
                }
                Selection::HasEcu(_) | Selection::And(_) | Selection::Or(_) => in_parentheses(part, f),
                Selection::All | Selection::Not(_) | Selection::Vehicle(_) | Selection::Tag(_) => {
                    query(part, f)
                }
            })
        }
        Selection::Or(parts) => separated(f, " or ", parts, |f, part| match part {
            Selection::Or(_) => in_parentheses(part, f),
            Selection::All
            | Selection::And(_)
            | Selection::Not(_)
            | Selection::Vehicle(_)
            | Selection::Tag(_)
            | Selection::HasEcu(_) => query(part, f),
        }),
        Selection::Not(part) => {
            f.write_str("not ")?;
            match part.as_ref() {
                Selection::And(_) | Selection::Or(_) => in_parentheses(part, f),
                Selection::HasEcu(tests) if tests.len() > 1 => in_parentheses(part, f),
                Selection::All
                | Selection::Not(_)
                | Selection::Vehicle(_)
                | Selection::Tag(_)
                | Selection::HasEcu(_) => query(part, f),
            }
        }
        Selection::Vehicle(test) => text_test(f, test.field.name(), &test.test),
        Selection::Tag(test) => text_test(f, TAG, test),
        Selection::HasEcu(tests) => separated(f, " and ", tests, |f, test| match test {
            EcuTest::Text { field, test } => text_test(f, field.name(), test),
            EcuTest::Version { field, order, than } => {
                write!(f, "{} {} {}", field.name(), order.symbol(), Quoted(than.as_str()))
            }
        }),
    }
}

fn in_parentheses(selection: &Selection, f: &mut Formatter<'_>) -> Result {
    f.write_char('(')?;
    query(selection, f)?;
    f.write_char(')')
}

fn text_test(f: &mut Formatter<'_>, field: &str, test: &TextTest) -> Result {
    match test {
        TextTest::Is(text) => write!(f, "{field} = {}", Quoted(text.as_str())),
        TextTest::IsNot(text) => write!(f, "{field} != {}", Quoted(text.as_str())),
        TextTest::In(texts) => write!(f, "{field} in ({})", listed(texts)),
        TextTest::NotIn(texts) => write!(f, "{field} not in ({})", listed(texts)),
        TextTest::StartsWith(text) => write!(f, "{field} starts with {}", Quoted(text.as_str())),
        TextTest::Known => write!(f, "{field} is known"),
        TextTest::Unknown => write!(f, "{field} is unknown"),
    }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    separator: &str,
    parts: &[T],
    mut write: impl FnMut(&mut Formatter<'_>, &T) -> Result,
) -> Result {
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            f.write_str(separator)?;
        }
        write(f, part)?;
    }
    Ok(())
}

/// Texts as in a query, with commas between.
pub(super) fn listed(texts: &[Text]) -> String {
    texts.iter().map(|text| Quoted(text.as_str()).to_string()).collect::<Vec<_>>().join(", ")
}

/// A text as in a query.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'t>(
    /// Without quotes and escapes.
    pub &'t str,
);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

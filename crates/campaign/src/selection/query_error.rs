//! Why a query cannot be read, and where: as data, so that people can be told in their language, and in English.

use std::fmt;

use super::fields::names;

/// A query that cannot be read: what was expected, what was found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// Where in the query, in bytes from its start.
    pub position: usize,
    /// The line there, from 1.
    pub line: usize,
    /// The place in that line, in characters from 1.
    pub column: usize,
    /// What could have stood there, or the bound that was overstepped.
    pub expected: ExpectedInQuery,
    /// What stands there, shortened for people.
    pub found: FoundInQuery,
}

/// What could have stood in a query, or the bound that was overstepped. As a text: in English.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedInQuery {
    /// The beginning of a comparison, of its opposite, or of some in parentheses.
    Comparison,
    /// The name of a field.
    Field,
    /// What can follow a field that has no order.
    Operator,
    /// What can follow a field that is a version.
    OperatorOfVersion,
    /// A text in double quotes.
    QuotedText,
    /// A text that a vehicle can have.
    ValidText(
        /// The rule, in words.
        &'static str,
    ),
    /// The double quote that ends a text.
    EndOfText,
    /// One of the two signs that can stand behind a backslash.
    Escape,
    /// Anything that the language knows.
    Token,
    /// A version that has a place among others.
    Version,
    /// An opening parenthesis, and texts.
    ListOfTexts,
    /// A further text of a list, or its end.
    MoreTexts,
    /// A further comparison, or a closing parenthesis.
    MoreOrClosing,
    /// A further comparison, or the end.
    MoreOrEnd,
    /// Nothing behind `all`.
    NothingAfterAll,
    /// What can follow `is`.
    KnownOrUnknown,
    /// One word.
    Keyword(
        /// The word.
        &'static str,
    ),
    /// Comparisons of one ECU side by side.
    EcuSideBySide,
    /// So many bytes at most.
    Bytes(
        /// The bound.
        usize,
    ),
    /// So many bytes at most in the canonical form.
    CanonicalBytes(
        /// The bound.
        usize,
    ),
    /// So many parentheses and `not`s around a comparison at most.
    Depth(
        /// The bound.
        usize,
    ),
    /// So many comparisons at most.
    Comparisons(
        /// The bound.
        usize,
    ),
}

/// What stands in a query. As a text: in English.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundInQuery {
    /// Nothing more.
    End,
    /// A word.
    Word(String),
    /// A word that is no field, and the field that was probably meant.
    UnknownField {
        /// The word.
        word: String,
        /// The field.
        meant: &'static str,
    },
    /// A text in double quotes, without them.
    Text(String),
    /// A value that is against its rule, as it is shown to people.
    Value(String),
    /// An operator, a parenthesis or a comma.
    Symbol(&'static str),
    /// A character that has no place in the language.
    Character(char),
    /// A character behind a backslash.
    Escaped(char),
    /// So many bytes.
    Bytes(usize),
    /// A comparison of an ECU that stands apart from others.
    EcuApart,
}

impl QueryError {
    pub(super) fn new(query: &str, position: usize, expected: ExpectedInQuery, found: FoundInQuery) -> Self {
        let position = query.floor_char_boundary(position);
        let before = query.get(..position).unwrap_or(query);
        let this_line = before.rsplit('\n').next().unwrap_or(before);
        Self {
            position,
            line: before.matches('\n').count().saturating_add(1),
            column: this_line.chars().count().saturating_add(1),
            expected,
            found,
        }
    }

    /// The line of the query in question, a caret beneath the place, and what is wrong.
    pub fn render(&self, query: &str) -> String {
        // A tab would be wider than the space that stands for it beneath.
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let line = query.split('\n').nth(self.line.saturating_sub(1)).unwrap_or_default();
        let line: String = line.chars().map(visible).collect();
        let indent = " ".repeat(self.column.saturating_sub(1));
        format!("{}\n{indent}^\n{self}", line.trim_end())
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {} at ", self.expected, self.found)?;
        if self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}", self.column)
    }
}

impl std::error::Error for QueryError {}

impl fmt::Display for ExpectedInQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Comparison => "a field, `not` or `(`",
            Self::Field => {
                let names: Vec<String> = names().map(|name| format!("`{name}`")).collect();
                return write!(f, "a field ({})", names.join(", "));
            }
            Self::Operator => {
                "`=`, `!=`, `in`, `not in`, `starts with` or `is` \
                 (only `ecu.sw_version` and `ecu.bootloader_ver` have an order)"
            }
            Self::OperatorOfVersion => {
                "`=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `starts with` or `is`"
            }
            Self::QuotedText => "a text in double quotes",
            Self::ValidText(rule) => return write!(f, "a text of {rule}"),
            Self::EndOfText => "a `\"` that ends the text which begins here",
            Self::Escape => "`\\\"` or `\\\\`",
            Self::Token => "a field, a keyword, an operator or a text in double quotes",
            Self::Version => "a version of dotted numbers, such as \"3.2.6\" or \"3.2.6-rc.1\"",
            Self::ListOfTexts => "`(` and a list of texts",
            Self::MoreTexts => "`,` or `)`",
            Self::MoreOrClosing => "`and`, `or` or `)`",
            Self::MoreOrEnd => "`and`, `or` or the end of the query",
            Self::NothingAfterAll => "nothing after `all`, which means every vehicle",
            Self::KnownOrUnknown => "`known` or `unknown`",
            Self::Keyword(word) => return write!(f, "`{word}`"),
            Self::EcuSideBySide => {
                "all comparisons of one ECU side by side, and those of another ECU in parentheses"
            }
            Self::Bytes(most) => return write!(f, "at most {most} bytes of query"),
            Self::CanonicalBytes(most) => {
                return write!(f, "at most {most} bytes of query, spaces between all words included");
            }
            Self::Depth(most) => {
                return write!(f, "at most {most} parentheses and `not`s around a comparison");
            }
            Self::Comparisons(most) => return write!(f, "at most {most} comparisons"),
        })
    }
}

impl fmt::Display for FoundInQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the query"),
            Self::Word(word) => write!(f, "`{word}`"),
            Self::UnknownField { word, meant } => write!(f, "`{word}` (did you mean `{meant}`?)"),
            Self::Text(text) => write!(f, "the text \"{text}\""),
            Self::Value(value) => f.write_str(value),
            Self::Symbol(symbol) => write!(f, "`{symbol}`"),
            Self::Character(character) => write!(f, "`{}`", character.escape_debug()),
            Self::Escaped(character) => write!(f, "`\\{}`", character.escape_debug()),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::EcuApart => f.write_str("one that stands apart"),
        }
    }
}

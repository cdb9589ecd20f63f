//! Why a query cannot be read, and where.

use std::fmt;

/// A query that cannot be read: what was expected, what was found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// Where in the query, in bytes from its start.
    pub position: usize,
    /// The line there, from 1.
    pub line: usize,
    /// The place in that line, in characters from 1.
    pub column: usize,
    /// What could have stood there, or the bound that was overstepped, in words.
    pub expected: String,
    /// What stands there, shortened for people.
    pub found: String,
}

impl QueryError {
    pub(super) fn new(
        query: &str,
        position: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let position = query.floor_char_boundary(position);
        let before = query.get(..position).unwrap_or(query);
        let this_line = before.rsplit('\n').next().unwrap_or(before);
        Self {
            position,
            line: before.matches('\n').count().saturating_add(1),
            column: this_line.chars().count().saturating_add(1),
            expected: expected.into(),
            found: found.into(),
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

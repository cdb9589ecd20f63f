//! Statements and rows, as small as any SQL database can offer them.

use std::cell::RefCell;
use std::str::FromStr;

use farrier_protocol::{Binding, UnixMillis};
use rusqlite::Connection;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::{Committed, StoreError};

/// A value that is bound to a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<UnixMillis> for Value<'_> {
    fn from(time: UnixMillis) -> Self {
        Self::Integer(time.0)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// An open transaction. Statements name their parameters `$1`, `$2`, …
pub(crate) struct Tx<'c> {
    connection: &'c Connection,
    committed: RefCell<Committed>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, committed: RefCell::default() }
    }

    pub(super) fn into_committed(self) -> Committed {
        self.committed.into_inner()
    }

    /// Once this is durable, the vehicle's connection looks for commands.
    pub(crate) fn wake(&self, binding: &Binding) {
        self.committed.borrow_mut().wake.insert(binding.clone());
    }

    /// Once this is durable, the runner looks when something is due.
    pub(crate) fn due_changed(&self) {
        self.committed.borrow_mut().due_changed = true;
    }

    /// Once this is durable, the maker of deltas looks what is wanted.
    pub(crate) fn delta_wanted(&self) {
        self.committed.borrow_mut().delta_wanted = true;
    }

    /// Runs a statement; gives the number of rows that it changed.
    pub(crate) fn exec(&self, sql: &'static str, parameters: &[Value<'_>]) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        bind(&mut statement, parameters)?;
        Ok(statement.raw_execute()?)
    }

    /// Reads all rows.
    pub(crate) fn rows<R>(
        &self,
        sql: &'static str,
        parameters: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<R, StoreError>,
    ) -> Result<Vec<R>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        bind(&mut statement, parameters)?;
        let mut rows = statement.raw_query();
        let mut read_rows = Vec::new();
        while let Some(row) = rows.next()? {
            read_rows.push(read(&Row(row))?);
        }
        Ok(read_rows)
    }

    /// Reads the first row.
    pub(crate) fn row<R>(
        &self,
        sql: &'static str,
        parameters: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<R, StoreError>,
    ) -> Result<Option<R>, StoreError> {
        Ok(self.rows(sql, parameters, read)?.into_iter().next())
    }
}

/// Binds by name: SQLite numbers `$1`, `$2` by where they first stand, other databases by their digits.
fn bind(statement: &mut rusqlite::Statement<'_>, parameters: &[Value<'_>]) -> Result<(), StoreError> {
    if statement.parameter_count() != parameters.len() {
        let (given, wanted) = (parameters.len(), statement.parameter_count());
        return Err(rusqlite::Error::InvalidParameterCount(given, wanted).into());
    }
    for (number, parameter) in (1..).zip(parameters) {
        let name = format!("${number}");
        let index = statement.parameter_index(&name)?;
        let index = index.ok_or(rusqlite::Error::InvalidParameterName(name))?;
        statement.raw_bind_parameter(index, parameter)?;
    }
    Ok(())
}

/// A row that was found; columns count from 0.
pub(crate) struct Row<'r>(&'r rusqlite::Row<'r>);

impl Row<'_> {
    pub(crate) fn integer(&self, column: usize) -> Result<i64, StoreError> {
        Ok(self.0.get(column)?)
    }

    /// A number that is never negative, as all counts and sizes are written.
    pub(crate) fn count(&self, column: usize) -> Result<u64, StoreError> {
        Ok(self.integer(column)?.max(0).unsigned_abs())
    }

    pub(crate) fn time(&self, column: usize) -> Result<UnixMillis, StoreError> {
        Ok(UnixMillis(self.integer(column)?))
    }

    pub(crate) fn optional_time(&self, column: usize) -> Result<Option<UnixMillis>, StoreError> {
        Ok(self.optional_integer(column)?.map(UnixMillis))
    }

    pub(crate) fn optional_integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.0.get(column)?)
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        Ok(self.0.get(column)?)
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(self.0.get(column)?)
    }

    /// A text that was checked before it was written.
    pub(crate) fn parsed<T: FromStr>(&self, column: usize, expected: &'static str) -> Result<T, StoreError> {
        parsed(self.text(column)?, expected)
    }

    pub(crate) fn optional_parsed<T: FromStr>(
        &self,
        column: usize,
        expected: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.optional_text(column)?.map(|text| parsed(text, expected)).transpose()
    }

    /// A value that was written as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        column: usize,
        expected: &'static str,
    ) -> Result<T, StoreError> {
        let text = self.text(column)?;
        serde_json::from_str(&text).map_err(|_| StoreError::Damaged { expected, found: text })
    }
}

fn parsed<T: FromStr>(text: String, expected: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged { expected, found: text })
}

/// The JSON in which a value is stored.
pub(crate) fn stored_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged {
        expected: "a value that JSON can hold",
        found: error.to_string(),
    })
}

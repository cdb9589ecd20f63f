//! Statements that stay prepared on a connection to SQLite, and how values are bound to them.

use std::cell::RefCell;
use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, Statement};

use super::StoreError;
use super::tx::Value;

/// Runs statements on a connection.
pub(super) trait Prepared {
    fn connection(&self) -> &Connection;

    /// Binds the values to the statement and hands it over; it is prepared once.
    fn with(
        &self,
        sql: &'static str,
        parameters: &[Value<'_>],
        use_it: &mut dyn FnMut(&mut Statement<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
}

/// Keeps at hand what it has prepared: the connection's own cache is asked by a copy of the statement's text, which for a
/// small one takes as long as to run it.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    kept: RefCell<HashMap<Text, Kept<'c>>>,
}

/// Where the text of a statement stands in the program, by which it is known.
type Text = (usize, usize);

struct Kept<'c> {
    statement: CachedStatement<'c>,
    places: Places,
}

impl<'c> Statements<'c> {
    pub(super) fn on(connection: &'c Connection) -> Self {
        Self { connection, kept: RefCell::default() }
    }
}

impl Prepared for Statements<'_> {
    fn connection(&self) -> &Connection {
        self.connection
    }

    fn with(
        &self,
        sql: &'static str,
        parameters: &[Value<'_>],
        use_it: &mut dyn FnMut(&mut Statement<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let text = (sql.as_ptr().addr(), sql.len());
        let kept = self.kept.borrow_mut().remove(&text);
        let Kept { mut statement, places } = match kept {
            Some(kept) => kept,
            None => {
                let statement = self.connection.prepare_cached(sql)?;
                let places = known_places(&statement, text);
                Kept { statement, places }
            }
        };
        let used = bind(&mut statement, parameters, places).and_then(|()| use_it(&mut statement));
        // What was bound may be large.
        statement.clear_bindings();
        self.kept.borrow_mut().insert(text, Kept { statement, places });
        used
    }
}

/// Gives what is made of a statement that the values are bound to.
pub(super) fn bound<T>(
    statements: &dyn Prepared,
    sql: &'static str,
    parameters: &[Value<'_>],
    make: impl Fn(&mut Statement<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut made = None;
    statements.with(sql, parameters, &mut |statement| {
        made = Some(make(statement)?);
        Ok(())
    })?;
    made.ok_or(StoreError::NotCommitted)
}

/// The same for a statement that does not stay prepared.
pub(super) fn bound_once<T>(
    connection: &Connection,
    sql: &str,
    parameters: &[Value<'_>],
    make: impl Fn(&mut Statement<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let places = Places::of(&statement);
    bind(&mut statement, parameters, places)?;
    make(&mut statement)
}

/// Where the parameters of a statement stand: SQLite numbers `$1`, `$2` by where they first stand, PostgreSQL by their digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    /// Each where its number says, as in most statements.
    InOrder,
    /// Each where its name is.
    ByName,
}

impl Places {
    fn of(statement: &Statement<'_>) -> Self {
        let is_in_place = |number| {
            let digits = statement.parameter_name(number).and_then(|name| name.strip_prefix('$'));
            digits.is_some_and(|digits| digits.parse() == Ok(number))
        };
        if (1..=statement.parameter_count()).all(is_in_place) { Self::InOrder } else { Self::ByName }
    }
}

thread_local! {
    /// Of the statements that this thread has run: asking SQLite for each name again costs as much as binding the values.
    static KNOWN_PLACES: RefCell<HashMap<Text, Places>> = RefCell::default();
}

fn known_places(statement: &Statement<'_>, text: Text) -> Places {
    KNOWN_PLACES.with_borrow_mut(|known| *known.entry(text).or_insert_with(|| Places::of(statement)))
}

fn bind(statement: &mut Statement<'_>, parameters: &[Value<'_>], places: Places) -> Result<(), StoreError> {
    if statement.parameter_count() != parameters.len() {
        let (given, wanted) = (parameters.len(), statement.parameter_count());
        return Err(rusqlite::Error::InvalidParameterCount(given, wanted).into());
    }
    for (number, parameter) in (1..).zip(parameters) {
        let index = match places {
            Places::InOrder => number,
            Places::ByName => {
                let name = format!("${number}");
                let index = statement.parameter_index(&name)?;
                index.ok_or(rusqlite::Error::InvalidParameterName(name))?
            }
        };
        statement.raw_bind_parameter(index, parameter)?;
    }
    Ok(())
}
